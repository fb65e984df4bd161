"""A persistent team of threads that walk a tape together.

Worker threads live in Python but spend their time inside the `execute:serve` kernel, with the GIL released; an idle
worker comes back and sleeps on a lock, so an idle model costs no CPU.
"""

import contextlib
import os
import threading
import time
import weakref

import numpy as np

from edgeq import environment
from edgeq.errors import UsageError
from edgeq.graph.control import new_control
from edgeq.kernels.layout import (
    JOB,
    JOB_LED,
    JOB_STEPS,
    JOB_STOP,
    JOB_TAPE,
    JOB_WAKE,
    MAX_THREADS,
)
from edgeq.runtime import hardware
from edgeq.toolchain import library

KERNELS = ("execute:publish", "execute:lead", "execute:serve")


def team_size(threads: int | None = None) -> int:
    """`threads`, else EDGEQ_THREADS, else the cores worth using (see hardware.py).

    Raises UsageError for a number that cannot work: less than 1 or more than 64.
    """
    threads = environment.threads() if threads is None else threads
    if threads is None:
        threads = min(hardware.cores().threads, MAX_THREADS)
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"{threads} threads cannot work: give 1 to {MAX_THREADS}")
    return threads


class Team:
    """`threads` threads (see `team_size`), the calling one included.

    control: a block from graph/control.py, where the tapes to be run were made for one
    """

    def __init__(self, threads: int, control: np.ndarray | None = None):
        self.threads = threads
        self._process = os.getpid()
        self._publish, self._lead, serve = (library.kernel(name) for name in KERNELS)
        self.control = new_control(threads) if control is None else control
        self._address = self.control.ctypes.data
        # Locks as signals, each released in one step: an interrupt within a threading.Semaphore would leave it locked.
        self._wake = [threading.Lock() for _ in range(threads)]
        for wake in self._wake:
            wake.acquire()
        workers: list[threading.Thread] = []
        # First, as a thread may fail to start: a team that is dropped ends its threads.
        self.close = weakref.finalize(self, _stop, self._publish, self.control, self._wake, workers, threads)
        self.close.atexit = False  # they are daemons, and another thread's answer must not fail at the end
        cpus = hardware.cores().restriction(threads)
        for i in range(1, threads):
            args = (serve, self.control, self._wake[i], i, threads, cpus)
            worker = threading.Thread(target=_work, args=args, name=f"edgeq-{i}", daemon=True)
            try:
                worker.start()
            except RuntimeError:
                raise UsageError(f"{threads} threads cannot be started here: give at most {i}") from None
            workers.append(worker)

    def run(self, tape: int, steps: int) -> None:
        """Run the tape at the address `tape` on all threads; returns when the last step is done.

        The tape's last step must ask for a barrier: it is how the team knows that all are done.
        """
        if self.control[JOB_STOP]:
            raise UsageError("the model is closed: load it again")
        if os.getpid() != self._process:  # a fork copies the memory, not the threads
            raise UsageError("the model was loaded before this process forked: load it in the child")
        self.control[JOB_TAPE], self.control[JOB_STEPS] = tape, steps
        try:
            _announce(self._publish, self.control, self._wake, self.threads)
            self._lead(self._address, 0, self.threads)
        except BaseException:
            self._finish_interrupted()
            raise

    def _finish_interrupted(self) -> None:
        """After Ctrl-C: the workers may have begun a job, and a job that has begun must be led to its end."""
        if self.control[JOB_LED] == self.control[JOB]:
            return
        try:
            for wake in self._wake[1:]:
                _signal(wake)  # one too many is harmless: the worker serves, finds nothing and sleeps again
            self._lead(self._address, 0, self.threads)
        finally:
            if self.control[JOB_LED] != self.control[JOB]:  # interrupted again: out of step for good
                self.control[JOB_STOP] = 1


def _announce(publish: library.Kernel, control: np.ndarray, wake: list[threading.Lock], threads: int) -> None:
    publish(control.ctypes.data, 0, threads)
    mask = int(control[JOB_WAKE])
    for i in range(1, threads):
        if mask >> i & 1:
            _signal(wake[i])


def _signal(wake: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # not locked: an earlier signal has yet to be noticed
        wake.release()


def _work(
    serve: library.Kernel,
    control: np.ndarray,
    wake: threading.Lock,
    index: int,
    threads: int,
    cpus: frozenset[int] | None,
) -> None:
    if cpus is not None:
        # CPUs that went offline since, or a system without this call: the scheduler's choice will do
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(threading.get_native_id(), cpus)
    while not control[JOB_STOP]:
        serve(control.ctypes.data, index, threads)
        if not control[JOB_STOP]:
            wake.acquire()


def _stop(
    publish: library.Kernel,
    control: np.ndarray,
    wake: list[threading.Lock],
    workers: list[threading.Thread],
    threads: int,
) -> None:
    control[JOB_STOP] = 1
    _announce(publish, control, wake, threads)
    deadline = time.monotonic() + 1.0  # they are daemons: an exit does not wait for one that is stuck
    for worker in workers:
        if worker is not threading.current_thread():
            worker.join(timeout=max(0.0, deadline - time.monotonic()))
