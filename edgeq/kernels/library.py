"""Find a kernel's machine code, compiling it on first use. Imports no Numba unless something must be compiled."""

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterable, Sequence

import llvmlite.binding as llvm

from edgeq import environment
from edgeq.kernels import cache
from edgeq.simd import isa as isa_table

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_LOADING = threading.RLock()  # LLVM's engine is not for two threads at a time
_fresh: dict[tuple[str, isa_table.Isa], bytes] = {}  # compiled by this process's workers, not yet loaded


class Kernel:
    """A compiled kernel: `address` for tapes; calling it releases the GIL."""

    def __init__(self, name: str, address: int):
        self.name, self.address = name, address
        self._function = _PROTOTYPE(address)

    def __call__(self, args: int, thread: int = 0, n_threads: int = 1) -> None:
        """Run with the argument block at the address `args`."""
        self._function(args, thread, n_threads)


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
    return [name for name in dict.fromkeys(names) if cache.read(name, isa) is None]


def kernel(name: str, isa: isa_table.Isa | None = None) -> Kernel:
    """The kernel `family:variant`, e.g. `matmul:Q4_K`, for `isa` or the chosen instruction set body."""
    with _LOADING:
        return _kernel(name, isa or isa_table.choose())


@functools.cache
def _kernel(name: str, isa: isa_table.Isa) -> Kernel:
    code = _fresh.pop((name, isa), None) or cache.read(name, isa)
    if code is None:
        from edgeq.kernels.compile import compile_kernel

        family, _, variant = name.partition(":")
        code = compile_kernel(family, variant, isa, _symbol(name, isa))
        cache.keep(name, isa, code)
    return Kernel(name, _engine().load(code, _symbol(name, isa)))


def prepare(names: Iterable[str], announce: Callable[[str], None] | None = None) -> dict[str, Kernel]:
    """The kernels `names`; those that are missing are compiled first, several at a time.

    `announce` hears one line when there are some; where it has a method `progress(done, total)`, that hears how far
    the work is, and (total, total) at its end, however it ends. Raises KernelError if a kernel cannot be compiled.
    """
    names = list(dict.fromkeys(names))
    absent = missing(names)
    if absent and announce is not None:
        cpu = llvm.get_host_cpu_name()
        announce(f"compiling {len(absent)} kernels for {cpu} ({isa_table.choose().name}), once: {', '.join(absent)}")
    if len(absent) > 1:
        with contextlib.suppress(OSError):  # no process can be started: they are compiled here, one after the other
            _compile(absent, getattr(announce, "progress", lambda done, total: None))
    kernels = {name: kernel(name) for name in names}
    cache.mark_used()
    if absent:
        cache.prune()
        if announce is not None and missing(absent):
            announce(
                f"{environment.cache_folder()} cannot be written: kernels will be compiled again (set EDGEQ_CACHE)"
            )
    return kernels


def _compile(names: Sequence[str], progress: Callable[[int, int], None]) -> None:
    """Have kernels compiled by other processes. What is ready stays, even if a later one fails."""
    from edgeq.kernels import worker

    isa = isa_table.choose()
    jobs = [worker.Job(name, isa.name, _symbol(name, isa)) for name in names]
    try:
        progress(0, len(jobs))
        for done, (job, code) in enumerate(worker.compile_all(jobs, worker.processes(len(jobs))), 1):
            cache.keep(job.name, isa, code)
            _fresh[job.name, isa] = code
            progress(done, len(jobs))
    finally:
        progress(len(jobs), len(jobs))


def _symbol(name: str, isa: isa_table.Isa) -> str:
    return f"edgeq_{name}_{isa.name}".replace(":", "_")
