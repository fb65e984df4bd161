"""Whose turn it is: several threads may ask one model for answers, and it works on one answer at a time."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE_S = 1.0  # an answer whose caller has asked for nothing so long lets others go first


class Floor:
    """One speaker at a time has the floor; those who ask for it meanwhile queue, in the order in which they came.

    A speaker keeps the floor between its steps, so that two answers are not computed by turns, each of which would
    cost the other its keys and values. It passes on when the speaker leaves, when the speaker's caller pauses for
    PATIENCE_S, and at once to whoever is called from where the speaker is: that caller cannot be waiting for both.
    """

    def __init__(self) -> None:
        self._working = threading.Lock()
        self._queue = threading.Condition()
        self._waiting: deque[object] = deque()
        self._speaker: object | None = None
        self._caller: object = None
        self._since = 0.0  # when its latest step ended

    def step(self, speaker: object, caller: object, work: Callable[[], Result]) -> Result:
        """Do `work`, one step of `speaker`, which `caller` (a thread, a task) asked for: alone, when its turn comes."""
        self._wait(speaker, caller)
        with self._working:  # who comes between the two changes whose turn it is, never whether steps run alone
            try:
                return work()
            finally:
                self._since = time.monotonic()

    def leave(self, speaker: object) -> None:
        """`speaker` is done: the next in the queue may begin."""
        with self._queue:
            if self._speaker is speaker:
                self._speaker = None
                self._queue.notify_all()

    def _wait(self, speaker: object, caller: object) -> None:
        with self._queue:
            if self._speaker is not speaker and (self._waiting or not self._is_free(caller)):
                ticket = object()
                self._waiting.append(ticket)
                try:
                    while self._waiting[0] is not ticket or not self._is_free(caller):
                        self._queue.wait(PATIENCE_S / 4)  # a pause ends unannounced
                finally:
                    self._waiting.remove(ticket)
                    self._queue.notify_all()
            if self._speaker is not speaker:
                self._speaker, self._since = speaker, time.monotonic()
            self._caller = caller

    def _is_free(self, caller: object) -> bool:
        if self._speaker is None or self._caller == caller:
            return True
        return not self._working.locked() and time.monotonic() - self._since > PATIENCE_S
