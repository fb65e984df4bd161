"""Are the kernels there, or must they be compiled first, and could they be?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.container.part_file import PartFile
from edgeq.container.reader import File
from edgeq.graph.lowering import ROW_TILE
from edgeq.kernels.layout import KV_BYTES
from edgeq.models import Architecture, architecture, images
from edgeq.models.image_tower import PROJECTOR, TOWER, is_of_images
from edgeq.ops import catalog
from edgeq.runtime import limits
from edgeq.runtime.compiler import Compiler
from edgeq.system import environment
from edgeq.toolchain import library
from edgeq.toolchain.compilers import no_compiler


@dataclass(frozen=True)
class KernelState:
    """Where compiled kernels are kept, which of those asked for are missing, and whether they can be compiled.

    no_compiler: why they cannot; nothing where they can
    library: the file of kernels built ahead of time that is used, and the CPU it was made for; None without one
    refused: a line for each such file that is for this CPU but stale or damaged
    passed_over: a line for each that is for another CPU
    """

    folder: Path
    body: str
    missing: tuple[str, ...]
    no_compiler: str
    library: tuple[Path, str] | None
    refused: tuple[str, ...]
    passed_over: tuple[str, ...]

    @property
    def usable(self) -> bool:
        return not (self.no_compiler and self.missing)


def kernel_state(names: Sequence[str]) -> KernelState:
    """The state of the kernels `names` for the body that runs here. Raises UnsupportedError for an impossible body."""
    missing = tuple(library.missing(names))  # first: a library that is damaged shows when a kernel is taken from it
    used, refused, others = library.built_ahead()
    folder, body = environment.cache_folder(), library.chosen_isa().name
    return KernelState(folder, body, missing, no_compiler(), used, tuple(refused), tuple(others))


def bodies() -> list[tuple[str, str, list[str]]]:
    """Instruction set bodies for CPUs of this kind, best first: name, chips, and the features that this CPU lacks."""
    return library.bodies()


def put_library(
    cpu: str, names: Sequence[str] | None = None
) -> Callable[[Path, Callable[[str], None], Callable[[int, int], None]], Path] | None:
    """What puts a library of the kernels `names`, by default all, for `cpu` into a folder, see toolchain/library.py."""
    return library.put_library(cpu, catalog.names(library.body_of(cpu)) if names is None else names)


def needed(file: File, cpu: str) -> list[str]:
    """Every kernel that running `file` can ask for on `cpu` (a name of toolchain/cpus.py), whatever the options, and
    those that measure the machine. Raises FormatError, UnsupportedError for a file that cannot be run.

    They are those of the plans of all KV caches, for logits and for states: context, threads and the length of a
    prompt make a plan's buffers, not its steps.
    """
    model = architecture(file.metadata["config"], str(file.path))
    tile = library.body_of(cpu).tile
    names = [*limits.ALL_KERNELS, "copy_rows"]  # which rows in place of ids, and taps, ask for
    for kv in KV_BYTES:
        for part, own in [(file, model), *_of_images(file)]:
            for states in (False, True) if own.writes_text else (True,):
                compiler = Compiler(part, own, ROW_TILE, ROW_TILE, ROW_TILE, 1, kv, states, tile)
                compiler.place()
                names += compiler.tape.kernels
    return list(dict.fromkeys(names))


def _of_images(file: File) -> list[tuple[File, Architecture]]:
    """What a file's model sees with."""
    found = images(file.metadata["config"], str(file.path)) if any(map(is_of_images, file.tensors)) else None
    return [] if found is None else [(PartFile(file, TOWER), found.tower), (PartFile(file, PROJECTOR), found.projector)]
