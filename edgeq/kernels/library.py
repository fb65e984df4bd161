"""Find a kernel's machine code, compiling it on first use. Imports no Numba unless something must be compiled.

Objects are cached on disk, one file per kernel, in a folder named by a digest of every kernel source, the CPU, its
features and the versions of the compilers: Numba's own cache looks at one source file only and would run stale code
after an edit elsewhere.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding as llvm

from edgeq import environment
from edgeq.simd import isa as isa_table

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_PACKAGE = Path(__file__).resolve().parent.parent
_LOADING = threading.RLock()  # LLVM's engine is not for two threads at a time
_SOURCES = ("simd", "kernels", "blocks")


class Kernel:
    """A compiled kernel: `address` for tapes; calling it releases the GIL."""

    def __init__(self, name: str, address: int):
        self.name, self.address = name, address
        self._function = _PROTOTYPE(address)

    def __call__(self, args: int, thread: int = 0, n_threads: int = 1) -> None:
        """Run with the argument block at the address `args`."""
        self._function(args, thread, n_threads)


@functools.cache
def digest() -> str:
    """What compiled code depends on, as 16 hex digits."""
    state = hashlib.sha256()
    for folder in _SOURCES:
        for source in sorted((_PACKAGE / folder).glob("*.py")):
            state.update(f"{folder}/{source.name}\0".encode() + source.read_bytes())
    features = ",".join(sorted(name for name, present in isa_table.host_features().items() if present))
    cpu = (platform.machine(), llvm.get_host_cpu_name(), features)
    state.update(repr((cpu, sys.version_info[:2], version("numba"), version("llvmlite"))).encode())
    return state.hexdigest()[:16]


class _Engine:
    """The process's loaded objects."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
        self._jit = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)

    def load(self, code: bytes, symbol: str) -> int:
        self._jit.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._jit.finalize_object()
        return int(self._jit.get_function_address(symbol))


_engine = functools.cache(_Engine)


def object_path(name: str, isa: isa_table.Isa) -> Path:
    family, _, variant = name.partition(":")
    stem = f"{family}-{variant}" if variant else family
    return environment.cache_folder() / "kernels" / digest() / f"{stem}-{isa.name}.o"


def chosen_isa() -> isa_table.Isa:
    """The instruction set body that kernels are compiled for."""
    return isa_table.choose()


def bodies() -> list[tuple[str, str, list[str]]]:
    """Instruction set bodies for CPUs of this kind, best first: name, chips, and the features that this CPU lacks."""
    features = isa_table.host_features()
    rows = [isa for isa in isa_table.TABLE if not isa.needs or isa.needs & features.keys()]
    return [(isa.name, isa.chips, sorted(need for need in isa.needs if not features.get(need))) for isa in rows]


def missing(names: Iterable[str]) -> list[str]:
    """Those of `names` that are not in the cache, or damaged there, and would be compiled."""
    isa = isa_table.choose()
    return [name for name in dict.fromkeys(names) if _cached(name, isa) is None]


def kernel(name: str, isa: isa_table.Isa | None = None) -> Kernel:
    """The kernel `family:variant`, e.g. `matmul:Q4_K`, for `isa` or the chosen instruction set body."""
    with _LOADING:
        return _kernel(name, isa or isa_table.choose())


@functools.cache
def _kernel(name: str, isa: isa_table.Isa) -> Kernel:
    code = _cached(name, isa)
    if code is None:
        from edgeq.kernels.compile import compile_kernel

        family, _, variant = name.partition(":")
        code = compile_kernel(family, variant, isa, _symbol(name, isa))
        _keep(name, isa, code)
    return Kernel(name, _engine().load(code, _symbol(name, isa)))


def prepare(names: Iterable[str], announce: Callable[[str], None] | None = None) -> dict[str, Kernel]:
    """The kernels `names`; `announce` hears a line when some of them must be compiled first."""
    names = list(dict.fromkeys(names))
    absent = missing(names)
    if absent and announce:
        cpu = llvm.get_host_cpu_name()
        announce(f"compiling {len(absent)} kernels for {cpu} ({isa_table.choose().name}), once: {', '.join(absent)}")
    kernels = {name: kernel(name) for name in names}
    if absent and announce and missing(absent):
        announce(f"{environment.cache_folder()} cannot be written: kernels will be compiled again (set EDGEQ_CACHE)")
    return kernels


# ---- the cache: one file per kernel, a digest of the rest and then the object ----


def _symbol(name: str, isa: isa_table.Isa) -> str:
    return f"edgeq_{name}_{isa.name}".replace(":", "_")


def _seal(name: str, isa: isa_table.Isa, code: bytes) -> bytes:
    """What tells a whole object of this kernel from a damaged one, or from another's."""
    return hashlib.sha256(_symbol(name, isa).encode() + b"\0" + code).digest()


def _cached(name: str, isa: isa_table.Isa) -> bytes | None:
    """The object of a kernel; None if there is none, or none that is whole: it would crash the process."""
    try:
        content = object_path(name, isa).read_bytes()
    except OSError:
        return None
    seal, code = content[:32], content[32:]
    return code if seal == _seal(name, isa, code) else None


def _keep(name: str, isa: isa_table.Isa, code: bytes) -> None:
    """Write atomically. A cache that cannot be written costs a compilation next time, not this run."""
    path, temporary = object_path(name, isa), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(_seal(name, isa, code) + code)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
