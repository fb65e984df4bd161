"""Are the kernels there, or must they be compiled first, and could they be?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgeq import environment
from edgeq.kernels import library


@dataclass(frozen=True)
class KernelState:
    """Where compiled kernels are kept, which of those asked for are missing, and whether Numba is there to compile.

    library: the file of kernels built ahead of time that is used, and the CPU it was made for; None without one
    refused: a line for each such file that is for this CPU but stale or damaged
    passed_over: a line for each that is for another CPU
    """

    folder: Path
    body: str
    missing: tuple[str, ...]
    compiler: bool
    library: tuple[Path, str] | None
    refused: tuple[str, ...]
    passed_over: tuple[str, ...]

    @property
    def usable(self) -> bool:
        return self.compiler or not self.missing


def kernel_state(names: Sequence[str]) -> KernelState:
    """The state of the kernels `names` for the body that runs here. Raises UnsupportedError for an impossible body."""
    missing = tuple(library.missing(names))  # first: a library that is damaged shows when a kernel is taken from it
    used, refused, others = library.built_ahead()
    body, compiler = library.chosen_isa().name, find_spec("numba") is not None
    return KernelState(environment.cache_folder(), body, missing, compiler, used, tuple(refused), tuple(others))


def bodies() -> list[tuple[str, str, list[str]]]:
    """Instruction set bodies for CPUs of this kind, best first: name, chips, and the features that this CPU lacks."""
    return library.bodies()


def put_library(cpu: str) -> Callable[[Path, Callable[[str], None], Callable[[int, int], None]], Path] | None:
    """What puts the library of all kernels for `cpu` into a folder, or None, see kernels/library.py."""
    return library.put_library(cpu)
