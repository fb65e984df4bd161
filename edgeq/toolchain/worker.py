"""Compile kernels in processes of their own, several at a time: Numba holds a lock, and its 150 MB are gone afterwards.

Processes are started by their command line, never forked: a program that uses edgeq may have threads, and may lack the
guard around its main module that `multiprocessing` needs. A process takes one job at a time from its stdin, a line of
JSON, and answers on its stdout with a line that says how many bytes follow, and the object. When its stdin ends it ends
at once, also amid a job: however whoever asked has died, the system has closed that pipe.
"""

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from edgeq.errors import KernelError
from edgeq.system import cgroups, environment

PROCESS_BYTES = 300 << 20  # what one process needs, with room: some 210 MB were measured
_START = """
import sys, json
jobs = open(0, "rb", buffering=0)
sys.path[:] = json.loads(jobs.readline())
import edgeq.toolchain.worker
edgeq.toolchain.worker.serve(jobs)
"""

# Longest first, so that no process is left with a long job at the end.
_SECONDS = {
    "mend": 5.0,
    "attention": 3.3,
    "encode": 2.7,
    "experts": 1.9,
    "matmul": 1.8,
    "embedding": 0.7,
    "norm": 0.6,
    "rope": 0.5,
}


@dataclass(frozen=True)
class Job:
    """One kernel to compile: the arguments of `compile_kernel`, the body by its name; by default for this machine."""

    name: str
    isa: str
    symbol: str
    cpu: str | None = None
    features: str | None = None
    triple: str | None = None


def processes(jobs: int) -> int:
    """How many processes to compile with: one for each core that this process may use, as far as memory allows.

    Its control groups may grant less memory than the system has.
    """
    memory, limit = _available(), cgroups.memory_limit()
    if limit is not None:
        memory = min(memory, limit.available)
    return max(1, min(jobs, environment.processors(), memory // PROCESS_BYTES))


def _available() -> int:
    """Bytes of memory that the system can still give."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        import psutil  # systems other than Linux

        return int(psutil.virtual_memory().available)


def compile_all(jobs: Sequence[Job], count: int) -> Iterator[tuple[Job, bytes]]:
    """The object of every job, as they become ready, from `count` processes.

    Raises KernelError if a kernel cannot be compiled, OSError if no process can be started. However it ends, no
    process is left behind.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in sorted(jobs, key=lambda job: -_SECONDS.get(job.name.partition(":")[0], 0.2)):
        waiting.put(job)
    done: queue.SimpleQueue[tuple[Job, bytes] | KernelError] = queue.SimpleQueue()
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            log = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process lives)
            try:
                workers.append(_start(log))
            except OSError:
                if not workers:
                    raise
                break
            threading.Thread(target=_feed, args=(workers[-1], log, waiting, done), daemon=True).start()
        for _ in jobs:
            result = done.get()
            if isinstance(result, KernelError):
                raise result
            yield result
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


def _start(log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process in a group of its own: Ctrl-C at the terminal reaches this process alone, which ends the others."""
    group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
    return subprocess.Popen(
        [sys.executable, "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, **group
    )


def _feed(
    worker: subprocess.Popen[bytes],
    log: IO[bytes],
    waiting: "queue.SimpleQueue[Job]",
    done: "queue.SimpleQueue[tuple[Job, bytes] | KernelError]",
) -> None:
    """Hand jobs to one process until there are none; a thread of its own per process."""
    assert worker.stdin is not None and worker.stdout is not None
    job = None
    try:
        worker.stdin.write(json.dumps(sys.path).encode() + b"\n")
        while True:
            job = waiting.get_nowait()
            worker.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            worker.stdin.flush()
            nbytes = int(worker.stdout.readline())
            code = worker.stdout.read(nbytes)
            if len(code) != nbytes:
                raise EOFError
            done.put((job, code))
    except queue.Empty:
        worker.stdin.close()
    except (OSError, ValueError, EOFError):
        done.put(KernelError(f"kernel {job.name if job else '?'} cannot be compiled: {_ending(worker, log)}"))


def _ending(worker: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """How a process ended that should have answered: the last thing it said, or the signal that ended it."""
    code = worker.wait()
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines()
    if code < 0 or not said:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"its process {how}, perhaps for want of memory: close other programs and try again"
    return said[-1]


def serve(stdin: io.RawIOBase) -> None:
    """The process: jobs from `stdin` to stdout until `stdin` ends."""
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints would break the answers
    threading.Thread(target=_listen, args=(stdin, jobs), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        while True:
            code = compile_job(Job(**json.loads(jobs.get())))
            answers.write(b"%d\n" % len(code) + code)
            answers.flush()


def _listen(stdin: io.RawIOBase, jobs: "queue.SimpleQueue[bytes]") -> None:
    """Ends the process when `stdin` does. That is raw: a thread amid a buffered read would fail Python's own end."""
    while line := stdin.readline():
        jobs.put(line)
    os._exit(0)


def compile_job(job: Job) -> bytes:
    """The object of one kernel, compiled in this process."""
    from edgeq.simd.isa import TABLE
    from edgeq.toolchain.compile import compile_kernel

    family, _, variant = job.name.partition(":")
    isa = next(row for row in TABLE if row.name == job.isa)
    return compile_kernel(family, variant, isa, job.symbol, cpu=job.cpu, features=job.features, triple=job.triple)
