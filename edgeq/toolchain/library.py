"""Find a kernel's machine code: in a library built ahead of time, in the cache, or by compiling it.

Imports neither Numba nor llvmlite unless something must be compiled (or the system cannot run kernel files).
"""

import contextlib
import ctypes
import functools
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edgeq.errors import KernelError
from edgeq.simd import isa as isa_table
from edgeq.system import environment
from edgeq.system.output import make_folder, write_file
from edgeq.toolchain import cache, image, prebuilt
from edgeq.toolchain.compilers import REMEDY, no_compiler
from edgeq.toolchain.owned import refusal
from edgeq.toolchain.sources import sources, symbol

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_LOADING = threading.RLock()  # one thread loads or compiles at a time


class Kernel:
    """A compiled kernel: `address` for tapes; calling it releases the GIL."""

    def __init__(self, name: str, address: int):
        self.name, self.address = name, address
        self._function = _PROTOTYPE(address)

    def __call__(self, args: int, thread: int = 0, n_threads: int = 1) -> None:
        """Run with the argument block at the address `args`."""
        self._function(args, thread, n_threads)


_loaded: dict[tuple[str, str], Kernel] = {}  # by name and body


def chosen_isa() -> isa_table.Isa:
    """The instruction set body whose kernels run here.

    The one that EDGEQ_ISA names, or the best one that this CPU has; where nothing can be compiled, that of the best
    library built ahead of time. Raises UnsupportedError for an EDGEQ_ISA that cannot run here.
    """
    isa = isa_table.choose()
    library = prebuilt.best()
    if library and library.isa != isa.name and no_compiler():
        return next(row for row in isa_table.TABLE if row.name == library.isa)
    return isa


def bodies() -> list[tuple[str, str, list[str]]]:
    """Instruction set bodies for CPUs of this kind, best first: name, chips, and the features that this CPU lacks."""
    features = isa_table.host_features()
    rows = [isa for isa in isa_table.TABLE if not isa.needs or isa.needs & features.keys()]
    return [(isa.name, isa.chips, sorted(need for need in isa.needs if not features.get(need))) for isa in rows]


def body_of(cpu: str) -> isa_table.Isa:
    """The body whose kernels run on `cpu`, a name of cpus.py."""
    from edgeq.toolchain import cpus

    return cpus.cpu(cpu).isa


def put_library(
    cpu: str, names: Sequence[str]
) -> Callable[[Path, Callable[[str], None], Callable[[int, int], None]], Path] | None:
    """What puts a library of the kernels `names` for `cpu` (a name of cpus.py) into a folder; it gives the path.

    It copies one that was built from these sources and has them, or else builds it, telling so; None where there is
    neither such a library nor a compiler.
    """
    from edgeq.toolchain import cpus

    target = cpus.cpu(cpu)
    ready = prebuilt.built_for(cpu, names)
    if ready is None and no_compiler():
        return None

    def put(folder: Path, announce: Callable[[str], None], progress: Callable[[int, int], None]) -> Path:
        if ready is not None:
            make_folder(folder)
            copy = folder / f"{cpu}{prebuilt.SUFFIX}"
            write_file(copy, ready.read_bytes(), cache.OWN)
            return copy
        from edgeq.toolchain.build import build

        announce(f"compiling {len(names)} kernels for {cpu}")
        try:
            return build(target, folder, names, progress)
        finally:
            progress(1, 1)

    return put


def missing(names: Iterable[str]) -> list[str]:
    """Those of `names` that are neither built ahead of time nor in the cache, or damaged there."""
    isa = chosen_isa()
    with _LOADING:
        return [name for name in dict.fromkeys(names) if _find(name, isa) is None]


def kernel(name: str, isa: isa_table.Isa | None = None) -> Kernel:
    """The kernel `family:variant`, e.g. `matmul:Q4_K`, for `isa` or the chosen instruction set body.

    Raises KernelError if it must be compiled and cannot be.
    """
    isa = isa or chosen_isa()
    with _LOADING:
        found = _find(name, isa)
        if found is None:
            _check_compiler(name, isa)
            from edgeq.toolchain.compile import compile_kernel

            family, _, variant = name.partition(":")
            found = _adopt(name, isa, compile_kernel(family, variant, isa, symbol(name, isa)))[0]
        return found


def prepare(names: Iterable[str], announce: Callable[[str], None] | None = None) -> dict[str, Kernel]:
    """The kernels `names`; those that are missing are compiled first, several at a time.

    `announce` hears one line when there are some, and one for each library of kernels that is stale or damaged. Where
    it has a method `progress(done, total)`, that hears how far the work is, and (total, total) at its end, however it
    ends. Raises KernelError if a kernel cannot be compiled.
    """
    names = list(dict.fromkeys(names))
    absent = missing(names)
    if absent:
        refused = next(filter(None, (refusal(cache.path(name, chosen_isa())) for name in absent)), None)
        for line in [*prebuilt.problems(), *([refused] if refused else [])]:
            if announce is not None:
                announce(line)
        _check_compiler(absent[0], chosen_isa())
        if announce is not None:
            count = f"{len(absent)} kernel{'s' if len(absent) > 1 else ''}"
            announce(f"compiling {count} for this CPU ({chosen_isa().name}), once: {', '.join(absent)}")
        with contextlib.suppress(OSError):  # no process can be started: they are compiled here, one after the other
            kept = _compile(absent, getattr(announce, "progress", lambda done, total: None))
            if not kept and announce is not None:
                folder = environment.cache_folder()
                announce(f"{folder}: kernels cannot be kept there, and will be compiled again: set EDGEQ_CACHE")
    kernels = {name: kernel(name) for name in names}
    cache.mark_used(names, chosen_isa())
    if absent:
        cache.prune()
    return kernels


def _check_compiler(name: str, isa: isa_table.Isa) -> None:
    if reason := no_compiler():
        folder = environment.kernels_folder() or environment.data_folder()
        others = "".join(f"; {line}" for line in [*prebuilt.problems(), *prebuilt.passed_over()])
        if sys.platform == "linux" and platform.libc_ver()[0] != "glibc":  # Alpine has musl instead
            others = f"; its packages need glibc, which this system is without{others}"
        raise KernelError(
            f"kernel {name} must be compiled for this CPU ({isa.name}), and {reason}{others}: {REMEDY}, "
            f"or put a library that `edgeq kernels build` made elsewhere into {folder}"
        )


def _compile(names: Sequence[str], progress: Callable[[int, int], None]) -> bool:
    """Have kernels compiled by other processes; what is ready stays, even if a later one fails.

    False if the cache cannot be written. OSError if no process can be started.
    """
    from edgeq.toolchain import worker

    isa, kept = chosen_isa(), True
    jobs = [worker.Job(name, isa.name, symbol(name, isa)) for name in names]
    try:
        progress(0, len(jobs))
        for done, (job, code) in enumerate(worker.compile_all(jobs, worker.processes(len(jobs))), 1):
            with _LOADING:
                kept = _adopt(job.name, isa, code)[1] and kept
            progress(done, len(jobs))
    finally:
        progress(len(jobs), len(jobs))
    return kept


def built_ahead() -> tuple[tuple[Path, str] | None, list[str], list[str]]:
    """The library that kernels are taken from and the CPU it was made for, if any; why others are refused, with their
    paths; and why those for other CPUs are passed over."""
    best = prebuilt.best()
    used = None
    if best is not None and best.header is not None and best.isa == chosen_isa().name:
        used = best.path, best.header.cpu
    return used, prebuilt.problems(), prebuilt.passed_over()


def cached() -> tuple[int, Path]:
    """How many kernels of these sources were compiled here, for this machine, and where they are."""
    return cache.count(), cache.root()


# ---- loading ----


def _find(name: str, isa: isa_table.Isa) -> Kernel | None:
    """A kernel that is there already: loaded, built ahead of time, or in the cache."""
    key = name, isa.name
    if key not in _loaded:
        address = _from_library(name, isa)
        if address is None:
            # A damaged file is compiled anew: running it would crash the process.
            with contextlib.suppress(KernelError):
                address = _from_file(cache.path(name, isa), name, isa)
        if address is not None:
            _loaded[key] = Kernel(name, address)
    return _loaded.get(key)


def _from_library(name: str, isa: isa_table.Isa) -> int | None:
    for library in prebuilt.usable():
        if library.isa != isa.name:
            continue
        try:
            address = library.address(name)
        except KernelError as error:  # from now on it is one that cannot be used
            library.problem = str(error)
            continue
        if address is not None:
            return address
    return None


def _from_file(path: Path, name: str, isa: isa_table.Isa) -> int:
    """The address of the kernel in its file. KernelError if that is damaged, another's or not there."""
    if image.supported():
        header, code = image.load(path)
        address = code + header.kernels.get(name, -code)
    else:
        header, content = image.read(path)
        address = _engine().load(content, symbol(name, isa)) if name in header.kernels else 0
    if not address or header.isa != isa.name:
        raise KernelError(f"{path}: is not kernel {name}")
    return address


def _adopt(name: str, isa: isa_table.Isa, code: bytes) -> tuple[Kernel, bool]:
    """Load the object of a kernel that has just been compiled and keep it; False if the cache cannot be written."""
    architecture, kernels = platform.machine(), {name: 0}
    if image.supported():
        from edgeq.toolchain.link import link

        architecture, code, kernels = link({name: (code, symbol(name, isa))})
    needs = tuple(sorted(isa.needs))
    content = image.render(architecture, "host", needs, isa.name, sources([name], isa), kernels, code)
    kept = cache.keep(name, isa, content)
    with _as_file(content, cache.path(name, isa) if kept else None) as path:
        found = _loaded[name, isa.name] = Kernel(name, _from_file(path, name, isa))
    return found, kept


@contextlib.contextmanager
def _as_file(content: bytes, kept: Path | None) -> Iterator[Path]:
    """The path of a file with this content: the one in the cache, or one that goes away where there is none."""
    if kept is not None:
        yield kept
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:  # Windows opens no temporary file a second time
        path = Path(folder) / "kernel.eqk"
        path.touch(0o600)
        path.write_bytes(content)
        yield path


class _Engine:
    """LLVM's loader of objects, for systems that cannot run kernel files."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
        self._jit = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)

    def load(self, code: bytes, symbol: str) -> int:
        self._jit.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._jit.finalize_object()
        return int(self._jit.get_function_address(symbol))


_engine = functools.cache(_Engine)
