"""The threads of this process that walk tapes: one team, whichever models are loaded.

Worker threads live in Python but spend their time inside the `execute:serve` kernel, with the GIL released; an idle
worker comes back and sleeps on a lock, so an idle model costs no CPU. They are there as long as somebody may want them.
"""

import contextlib
import os
import threading
import time

import numpy as np

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
    worker_seen,
)
from edgeq.runtime import hardware
from edgeq.toolchain import library

KERNELS = ("execute:publish", "execute:lead", "execute:serve")

_changing = threading.RLock()  # who is a member, and which threads there are; a dropped member leaves at any moment
_current: "Workers | None" = None


class Workers:
    """The workers, and the control block that all tapes of this process are made for. Made by `join`."""

    def __init__(self) -> None:
        self.control = new_control(MAX_THREADS)
        self._address = int(self.control.ctypes.data)
        self.process = os.getpid()
        self.members: set[object] = set()
        self._threads: list[threading.Thread] = []
        self._ready = 0  # for teams of so many
        self._kernels: list[library.Kernel] = []
        # Locks as signals, each released in one step: an interrupt within a threading.Semaphore would leave it locked.
        self.wake = [threading.Lock() for _ in range(MAX_THREADS)]
        for wake in self.wake:
            wake.acquire()
        self._cpus: frozenset[int] | None = None  # that they keep to
        self._walking = threading.Lock()  # one tape at a time

    @property
    def stopped(self) -> bool:
        """Whether no tape can be run any more."""
        return bool(self.control[JOB_STOP])

    def hire(self, threads: int) -> None:
        """Start those that a team of `threads`, the calling one included, lacks. UsageError if that cannot be."""
        if threads <= self._ready:
            return
        with _changing:
            self._kernels = [library.kernel(name) for name in KERNELS]
            cpus = hardware.cores().restriction(threads)
            if cpus != self._cpus:
                for worker in self._threads:
                    _keep_to(worker.native_id, cpus or _allowed())
            self._cpus = cpus
            for i in range(len(self._threads) + 1, threads):
                self.control[worker_seen(i)] = self.control[JOB]  # what was published before is none of its business
                args = (self._kernels[2], self.control, self.wake[i], i, cpus)
                worker = threading.Thread(target=_work, args=args, name=f"edgeq-{i}", daemon=True)
                try:
                    worker.start()
                except RuntimeError:
                    raise UsageError(f"{threads} threads cannot be started here: give at most {i}") from None
                self._threads.append(worker)
            self._ready = max(self._ready, threads)

    def walk(self, tape: int, steps: int, threads: int) -> None:
        """Run the tape at the address `tape` on the calling thread and the first `threads` - 1 workers, hired before.

        Another thread that is walking one comes first.
        """
        control = self.control
        with self._walking:
            control[JOB_TAPE], control[JOB_STEPS] = tape, steps
            try:
                self._announce(threads)
                self._lead(threads)
            except BaseException:
                self._finish_interrupted(threads)
                raise

    def _lead(self, threads: int) -> None:
        self._kernels[1](self._address, 0, threads)

    def _finish_interrupted(self, threads: int) -> None:
        """After Ctrl-C: the workers may have begun a job, and a job that has begun must be led to its end."""
        control = self.control
        if control[JOB_LED] == control[JOB]:
            return
        try:
            for wake in self.wake[1:threads]:
                _signal(wake)  # one too many is harmless: the worker serves, finds nothing and sleeps again
            self._lead(threads)
        finally:
            if control[JOB_LED] != control[JOB]:  # interrupted again: out of step for good
                control[JOB_STOP] = 1

    def _announce(self, threads: int) -> None:
        self._kernels[0](self._address, 0, threads)
        if threads == 1:
            return
        mask = int(self.control[JOB_WAKE])
        for i in range(1, threads):
            if mask >> i & 1:
                _signal(self.wake[i])

    def stop(self) -> None:
        """End the threads."""
        self.control[JOB_STOP] = 1
        if not self._threads or os.getpid() != self.process:
            return
        self._announce(len(self._threads) + 1)
        deadline = time.monotonic() + 1.0  # they are daemons: an exit does not wait for one that is stuck
        for worker in self._threads:
            if worker is not threading.current_thread():
                worker.join(timeout=max(0.0, deadline - time.monotonic()))


def join(member: object) -> Workers:
    """The workers of this process, who are there until `member` has left."""
    global _current
    with _changing:
        while True:
            if _current is None or _current.stopped:
                _current = Workers()
            found = _current
            found.members.add(member)
            if not found.stopped:  # as they are if the last of others was dropped a moment ago
                return found


def leave(workers: Workers, member: object) -> None:
    """The last one ends the threads."""
    with _changing:
        workers.members.discard(member)
        if not workers.members:
            workers.stop()


def _forked() -> None:
    """A fork copies the memory, not the threads: a child has workers of its own."""
    global _current, _changing
    _current, _changing = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _signal(wake: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # not locked: an earlier signal has yet to be noticed
        wake.release()


def _work(
    serve: library.Kernel, control: np.ndarray, wake: threading.Lock, index: int, cpus: frozenset[int] | None
) -> None:
    if cpus is not None:
        _keep_to(threading.get_native_id(), cpus)
    while not control[JOB_STOP]:
        serve(control.ctypes.data, index)
        if not control[JOB_STOP]:
            wake.acquire()


def _keep_to(thread: int | None, cpus: frozenset[int]) -> None:
    # CPUs that went offline since, or a system without this call: the scheduler's choice will do
    with contextlib.suppress(OSError, AttributeError):
        if thread is not None:
            os.sched_setaffinity(thread, cpus)


def _allowed() -> frozenset[int]:
    """The CPUs of the calling thread, which goes where it likes."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
