"""Libraries of kernels that were built ahead of time: find the one that fits this CPU and these sources.

Looked for as `*.eqk` in the folder that EDGEQ_KERNELS names, or else in the package (`edgeq/kernels/prebuilt`) and in
the user's data folder. Never beside a model: what is downloaded with one must not be run. Imports neither Numba nor
llvmlite.
"""

import functools
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.errors import KernelError
from edgeq.simd import isa as isa_table
from edgeq.system import environment
from edgeq.toolchain import image
from edgeq.toolchain.sources import sources

SUFFIX = ".eqk"
PACKAGED = Path(__file__).resolve().parent.parent / "kernels" / "prebuilt"


@dataclass
class Library:
    """A kernel file that was found; `problem` says why it cannot be used, or is empty."""

    path: Path
    header: image.Header | None
    problem: str = ""
    _code: int | None = field(default=None, repr=False)

    @property
    def isa(self) -> str:
        return self.header.isa if self.header else ""

    def address(self, name: str) -> int | None:
        """Where the kernel `name` is, or None if it is not in the library. KernelError if the library is damaged."""
        assert self.header is not None
        if name not in self.header.kernels:
            return None
        if self._code is None:
            header, code = image.load(self.path)
            if header != self.header:  # its CPU and sources were checked before
                raise KernelError(f"{self.path}: has changed since it was looked at: start again")
            self._code = code
        return self._code + self.header.kernels[name]


def folders() -> list[Path]:
    """Where libraries are looked for, in this order."""
    named = environment.kernels_folder()
    return [named] if named else [PACKAGED, environment.data_folder()]


@functools.cache
def found(places: tuple[Path, ...]) -> list[Library]:
    """Every library in these folders, the best that can be used here first."""
    paths = [path for place in places for path in sorted(place.glob(f"*{SUFFIX}")) if path.is_file()]
    libraries = [_examine(path) for path in paths]
    order = {isa.name: i for i, isa in enumerate(isa_table.TABLE)}
    return sorted(libraries, key=lambda one: (bool(one.problem), order.get(one.isa, len(order)), -_needs(one)))


def built_for(cpu: str, names: Iterable[str]) -> Path | None:
    """A sound library with the kernels `names` for `cpu`, built from these sources, whether it runs here or not."""
    wanted = set(names)
    for one in found(tuple(folders())):
        if one.header is None or one.header.cpu != cpu or not _is_current(one.header):
            continue
        try:
            header, _ = image.read(one.path)
        except KernelError:
            continue
        if wanted <= header.kernels.keys():
            return one.path
    return None


def usable() -> list[Library]:
    """The libraries that can be used here, the best first. EDGEQ_ISA rules out those of other bodies."""
    if not image.supported():
        return []
    wanted = environment.isa()
    return [one for one in found(tuple(folders())) if not one.problem and wanted in (None, one.isa)]


def best() -> Library | None:
    """The library to use, or None; what it lacks may be in others that are usable."""
    return next(iter(usable()), None)


def problems() -> list[str]:
    """One line for each library that is refused although it is for this CPU: it is stale or damaged."""
    if not image.supported():
        return []
    named = environment.kernels_folder()
    if named and not named.is_dir():
        return [f"{named}: is no folder of libraries of kernels: set EDGEQ_KERNELS to one, or unset it"]
    return [one.problem for one in found(tuple(folders())) if one.problem.startswith(str(one.path))]


def passed_over() -> list[str]:
    """Why the libraries that are sound, but for other CPUs, cannot be used here."""
    libraries = found(tuple(folders())) if image.supported() else []
    others = [one for one in libraries if one.problem and not one.problem.startswith(str(one.path))]
    return [f"{one.path.name}: {one.problem}" for one in others]


def _needs(library: Library) -> int:
    return len(library.header.needs) if library.header else 0


def _examine(path: Path) -> Library:
    try:
        header = image.read_header(path)
    except KernelError as error:
        return Library(path, None, str(error))
    return Library(path, header, _problem(path, header))


def _body(header: image.Header) -> isa_table.Isa | None:
    return next((isa for isa in isa_table.TABLE if isa.name == header.isa), None)


def _is_current(header: image.Header) -> bool:
    """Whether a library was made from the sources that its kernels have now."""
    body = _body(header)
    try:
        return body is not None and header.sources == sources(header.kernels, body)
    except KernelError:  # it has families of kernels that are gone
        return False


def _problem(path: Path, header: image.Header) -> str:
    if header.architecture != platform.machine():
        return f"for {header.architecture}"
    features = isa_table.host_features()
    if lacking := [name for name in header.needs if not features.get(name)]:
        return f"this CPU has no {', '.join(lacking)}"
    body = _body(header)
    if body is None or not _is_current(header):
        return f"{path}: was built from other kernel sources: build it again (`edgeq kernels build`) or remove it"
    if not body.needs <= set(header.needs):
        return f"{path}: is damaged, its {body.name} kernels need more than it says: build it again"
    return ""
