"""Digests of what a kernel is made of, by which compiled ones are kept. Imports neither Numba nor llvmlite.

A kernel comes from the module of its family and from that of a body. They and all that they import, within functions
too, are its sources, with what compiles and links it. A change anywhere else leaves it as it is.
"""

import functools
import hashlib
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from edgeq.errors import KernelError
from edgeq.simd import cpuinfo
from edgeq.simd import isa as isa_table
from edgeq.toolchain.compilers import compiler_version

KERNEL_PACKAGES = ("edgeq.ops", "edgeq.kernels")  # where a family of kernels is looked for, in this order

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = ("blocks", "kernels", "ops", "simd")  # code of other folders is not compiled, nor that of an `__init__`
_MAKERS = ("edgeq.toolchain.compile", "edgeq.toolchain.link")
_COMPILERS = ("numba", "llvmlite")
_IMPORT = re.compile(r"from (edgeq[\w.]*) import (\([^)]*\)|[^\n]*)")
_NAME = re.compile(r"\w+")


def module_of(family: str) -> str:
    """The full name of the module that makes the kernels of a family. KernelError if there is none."""
    for package in KERNEL_PACKAGES:
        if (name := f"{package}.{family}") in _files():
            return name
    raise KernelError(f"there is no family of kernels {family}: this is a fault of edgeq")


def sources(names: Iterable[str], isa: isa_table.Isa) -> str:
    """Of the sources of the kernels `names` for a body, as 16 hex digits. KernelError if there is no such family."""
    return _digest_of(frozenset(name.partition(":")[0] for name in names), isa)


@functools.cache
def _digest_of(families: frozenset[str], isa: isa_table.Isa) -> str:
    state = hashlib.sha256()
    for module in sorted(set().union(*(made_of(family, isa) for family in families))):
        state.update(f"{module}\0".encode() + _source(module)[0])
    return state.hexdigest()[:16]


def digest(name: str, isa: isa_table.Isa, target: tuple[str, ...] | None = None) -> str:
    """Of a kernel's sources, the CPU and the compilers, as 16 hex digits: what its compiled code depends on.

    The CPU is this machine's, or the one that `target` tells LLVM to make code for.
    """
    return hashlib.sha256(repr((sources([name], isa), _compiled_by(target))).encode()).hexdigest()[:16]


@functools.cache
def made_of(family: str, isa: isa_table.Isa) -> frozenset[str]:
    """The modules that a family's kernels come from, by their full names. KernelError if there is no such family."""
    waiting, found = [module_of(family), isa.module, *_MAKERS], set()
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += _source(module)[1]
    return frozenset(found)


@functools.cache
def _compiled_by(target: tuple[str, ...] | None) -> tuple[object, ...]:
    features = ",".join(sorted(name for name, present in isa_table.host_features().items() if present))
    cpu = target or (platform.machine(), cpuinfo.identity(), features)
    return cpu, (sys.version_info[:2], *map(compiler_version, _COMPILERS))


@functools.cache
def _files() -> dict[str, Path]:
    """Every module that kernels can come from, by its full name."""
    paths = [path for folder in _FOLDERS for path in (_PACKAGE / folder).glob("[!_]*.py")]
    paths += [_PACKAGE / "toolchain" / f"{maker.rpartition('.')[2]}.py" for maker in _MAKERS]
    return {f"edgeq.{path.parent.name}.{path.stem}": path for path in paths}


@functools.cache
def _source(module: str) -> tuple[bytes, frozenset[str]]:
    """The digest of a module's source, and those of `_files` that it imports.

    Found without a parser, which would take longer than all else of a start; a comment that reads like an import
    counts as one, which does no harm.
    """
    text = _files()[module].read_text(encoding="utf-8")
    found: set[str] = set()
    for package, names in _IMPORT.findall(text):
        found |= {package, *(f"{package}.{name}" for name in _NAME.findall(names))}
    return hashlib.sha256(text.encode()).digest(), frozenset(found & _files().keys())


def symbol(name: str, isa: isa_table.Isa) -> str:
    """The name of a kernel's entry point in its object."""
    return f"edgeq_{name}_{isa.name}".replace(":", "_")
