"""Build a library of kernels ahead of time, for this CPU or any other of cpus.py, on any machine with Numba."""

from collections.abc import Callable, Sequence
from pathlib import Path

from edgeq.errors import KernelError, OutputError
from edgeq.system.output import make_folder, write_file
from edgeq.toolchain import cache, image, worker
from edgeq.toolchain.compilers import REMEDY, no_compiler
from edgeq.toolchain.cpus import Cpu
from edgeq.toolchain.link import link
from edgeq.toolchain.prebuilt import SUFFIX
from edgeq.toolchain.sources import sources, symbol


def check_compiler() -> None:
    """Raises KernelError where nothing can be compiled."""
    if reason := no_compiler():
        raise KernelError(f"kernels cannot be built: {reason}: {REMEDY}")


def build(
    cpu: Cpu,
    folder: Path,
    names: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Compile the kernels `names` for `cpu` into one file of `folder`; its path.

    Kernels go into the cache as they come, and those that are there are not compiled again: what is ended half-way is
    not lost. `progress` hears how many kernels are done, of how many. Raises KernelError if one cannot be compiled,
    OutputError if the file cannot be written.
    """
    check_compiler()
    path = folder / f"{cpu.name}{SUFFIX}"
    try:
        make_folder(folder)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}: give another folder with -o") from error
    names = list(dict.fromkeys(names))
    made_from = sources(names, cpu.isa)  # before they are compiled: an edit in between must not go unnoticed
    objects = {name: code for name in names if (code := cache.kept_object(name, cpu)) is not None}
    jobs = [
        worker.Job(name, cpu.isa.name, symbol(name, cpu.isa), cpu.llvm, cpu.features, cpu.triple)
        for name in names
        if name not in objects
    ]
    progress(len(objects), len(names))
    try:
        for job, code in worker.compile_all(jobs, worker.processes(len(jobs))):
            cache.keep_object(job.name, cpu, code)
            objects[job.name] = code
            progress(len(objects), len(names))
    except OSError as error:
        raise KernelError(f"no process can be started to compile kernels in: {error.strerror}") from error
    cache.mark_used(names, cpu.isa, cpu)
    architecture, code, entries = link({name: (objects[name], symbol(name, cpu.isa)) for name in names})
    if architecture != cpu.architecture:
        raise KernelError(f"kernels for {cpu.name} came out as code for {architecture}: this is a fault of edgeq")
    needs = tuple(sorted(cpu.needs))
    content = image.render(architecture, cpu.name, needs, cpu.isa.name, made_from, entries, code)
    write_file(path, content, cache.OWN)
    return path
