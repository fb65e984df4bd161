"""Digests of what compiled code depends on. Imports neither Numba nor llvmlite."""

import functools
import hashlib
import platform
import sys
from pathlib import Path

from edgeq.errors import KernelError
from edgeq.simd import cpuinfo
from edgeq.simd import isa as isa_table
from edgeq.toolchain.compilers import compiler_version

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


def symbol(name: str, isa: isa_table.Isa) -> str:
    """The name of a kernel's entry point in its object."""
    return f"edgeq_{name}_{isa.name}".replace(":", "_")
