"""Digests of what compiled code depends on. Imports neither Numba nor llvmlite."""

import functools
import hashlib
import importlib.util
import platform
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

from edgeq.errors import KernelError
from edgeq.simd import cpuinfo
from edgeq.simd import isa as isa_table

_PACKAGE = Path(__file__).resolve().parent.parent
KERNEL_PACKAGES = ("edgeq.ops", "edgeq.kernels")  # where a family of kernels is looked for, in this order
_FOLDERS = ("simd", "toolchain", "ops", "kernels", "blocks")
_COMPILERS = ("numba", "llvmlite")


def module_of(family: str) -> str:
    """The full name of the module that makes the kernels of a family. KernelError if there is none."""
    for package in KERNEL_PACKAGES:
        if (_PACKAGE / package.rpartition(".")[2] / f"{family}.py").is_file():
            return f"{package}.{family}"
    raise KernelError(f"there is no family of kernels {family}: this is a fault of edgeq")


@functools.cache
def sources() -> str:
    """Of every kernel source, as 16 hex digits."""
    state = hashlib.sha256()
    for folder in _FOLDERS:
        for source in sorted((_PACKAGE / folder).glob("*.py")):
            state.update(f"{folder}/{source.name}\0".encode() + source.read_bytes())
    return state.hexdigest()[:16]


@functools.cache
def digest(target: tuple[str, ...] | None = None) -> str:
    """Of the sources, the CPU and the compilers, as 16 hex digits: what code compiled here depends on.

    The CPU is this machine's, or the one that `target` tells LLVM to make code for.
    """
    features = ",".join(sorted(name for name, present in isa_table.host_features().items() if present))
    cpu = target or (platform.machine(), cpuinfo.identity(), features)
    compilers = (sys.version_info[:2], *map(compiler_version, _COMPILERS))
    return hashlib.sha256(repr((sources(), cpu, compilers)).encode()).hexdigest()[:16]


def compiler_version(package: str) -> str | None:
    """The version of `numba` or `llvmlite`; None where it is not installed.

    Read off the name of the folder that an installer leaves beside a package, as `importlib.metadata` takes longer to
    import than finding all kernels does.
    """
    spec = _spec(package)
    if spec is None or spec.origin is None:
        return None
    beside = [path.stem for path in Path(spec.origin).parent.parent.glob(f"{package}-*.dist-info")]
    if len(beside) == 1:
        return beside[0].removeprefix(f"{package}-")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def can_compile() -> bool:
    """Whether Numba is installed here."""
    return _spec("numba") is not None


def _spec(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # someone has put a stand-in into sys.modules
        return None
