"""Digests of what compiled code depends on. Imports neither Numba nor llvmlite."""

import functools
import hashlib
import importlib.util
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeq.simd import cpuinfo
from edgeq.simd import isa as isa_table

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = ("simd", "kernels", "blocks")
_COMPILERS = ("numba", "llvmlite")


@functools.cache
def sources() -> str:
    """Of every kernel source, as 16 hex digits."""
    state = hashlib.sha256()
    for folder in _FOLDERS:
        for source in sorted((_PACKAGE / folder).glob("*.py")):
            state.update(f"{folder}/{source.name}\0".encode() + source.read_bytes())
    return state.hexdigest()[:16]


@functools.cache
def digest() -> str:
    """Of the sources, this machine's CPU and the compilers, as 16 hex digits: what code compiled here depends on."""
    features = ",".join(sorted(name for name, present in isa_table.host_features().items() if present))
    cpu = (platform.machine(), cpuinfo.identity(), features)
    compilers = (sys.version_info[:2], *map(compiler_version, _COMPILERS))
    return hashlib.sha256(repr((sources(), cpu, compilers)).encode()).hexdigest()[:16]


def compiler_version(package: str) -> str | None:
    """The version of `numba` or `llvmlite`; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def can_compile() -> bool:
    """Whether Numba is installed here."""
    try:
        return importlib.util.find_spec("numba") is not None
    except ValueError:  # someone has put a stand-in into sys.modules
        return False
