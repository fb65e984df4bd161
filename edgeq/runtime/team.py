"""Threads that walk a tape together: the calling one and the first of this process's workers (see workers.py)."""

import os
import weakref

import numpy as np

from edgeq.errors import UsageError
from edgeq.kernels.layout import MAX_THREADS
from edgeq.runtime import hardware, workers
from edgeq.runtime.workers import KERNELS
from edgeq.system import environment

__all__ = ["KERNELS", "Team", "team_size"]


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
    """`threads` threads (see `team_size`), the calling one included. Teams share their workers, and take turns.

    control: what the tapes to be run must be made for (graph/control.py)
    """

    def __init__(self, threads: int):
        self.threads = threads
        member = object()
        self._workers = workers.join(member)
        self.control: np.ndarray = self._workers.control
        self.close = weakref.finalize(self, workers.leave, self._workers, member)  # a team that is dropped leaves, too
        self.close.atexit = False  # workers are daemons, and another thread's answer must not fail at the end

    def start(self) -> None:
        """Have the threads ready, as `run` does where they are not. UsageError if so many cannot be started."""
        self._workers.hire(self.threads)

    def run(self, tape: int, steps: int) -> None:
        """Run the tape at the address `tape` on all threads; returns when the last step is done.

        The tape's last step must ask for a barrier: it is how the team knows that all are done.
        """
        self.check()
        self._workers.hire(self.threads)
        self._workers.walk(tape, steps, self.threads)

    def check(self) -> None:
        """Raises UsageError if nothing can be run any more."""
        if not self.close.alive or self._workers.stopped:
            raise UsageError("the model is closed: load it again")
        if os.getpid() != self._workers.process:  # a fork copies the memory, not the threads
            raise UsageError("the model was loaded before this process forked: load it in the child")
