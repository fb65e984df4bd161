"""Are the kernels there, or must they be compiled first, and could they be?"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgeq import environment
from edgeq.kernels import library


@dataclass(frozen=True)
class KernelState:
    """Where compiled kernels are kept, which of those asked for are missing, and whether Numba is there to compile."""

    folder: Path
    body: str
    missing: tuple[str, ...]
    compiler: bool

    @property
    def usable(self) -> bool:
        return self.compiler or not self.missing


def kernel_state(names: Sequence[str]) -> KernelState:
    """The state of the kernels `names` for the body that runs here. Raises UnsupportedError for an impossible body."""
    body = library.chosen_isa().name
    missing = tuple(library.missing(names))
    return KernelState(environment.cache_folder(), body, missing, find_spec("numba") is not None)


def library_path(cpu: str, cache: Path) -> Path:
    """Where a cache folder holds the library of kernels that were compiled ahead of time for `cpu` (LLVM's name)."""
    return cache / "libraries" / f"edgeq-{cpu}.so"


def prebuilt_library(cpu: str) -> Path | None:
    """The library of ready kernels for `cpu` in this machine's cache; None if there is none."""
    path = library_path(cpu, environment.cache_folder())
    return path if path.is_file() else None
