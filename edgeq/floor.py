"""Whose turn it is: several threads may ask one model for answers, and it works on one answer at a time."""

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE_S = 1.0  # an answer whose caller has asked for nothing so long lets others go first


class _Ticket:
    """A place in the queue, for as long as somebody holds it; a lock is the signal that it may have come up."""

    def __init__(self) -> None:
        self.signal = threading.Lock()
        self.signal.acquire()


class Floor:
    """One speaker at a time has the floor; those who ask for it meanwhile queue, in the order in which they came.

    A speaker keeps the floor between its steps, so that two answers are not computed by turns, each of which would
    cost the other its keys and values. It passes on when the speaker leaves, when the speaker's caller pauses for
    PATIENCE_S, and where that caller asks for another speaker, as it cannot be waiting for both.

    An interrupt may come at any place: plain locks are held by `with` alone, and a ticket whose holder is gone is none.
    """

    def __init__(self) -> None:
        self._working = threading.Lock()
        self._state = threading.Lock()  # of what follows
        self._waiting: deque[weakref.ref[_Ticket]] = deque()
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
        with self._state:
            if self._speaker is speaker:
                self._pass_on()

    def _wait(self, speaker: object, caller: object) -> None:
        if self._take(speaker, caller, None):
            return
        ticket = _Ticket()
        with self._state:
            self._waiting.append(weakref.ref(ticket))
        while not self._take(speaker, caller, ticket):
            ticket.signal.acquire(timeout=PATIENCE_S / 4)  # a pause ends unannounced

    def _take(self, speaker: object, caller: object, ticket: _Ticket | None) -> bool:
        """Give `speaker` the floor if it is its turn; whether it has it."""
        with self._state:
            if self._speaker is not speaker:
                if self._caller == caller:
                    self._pass_on()
                if self._first() is not ticket or not self._is_free():
                    return False
                self._speaker, self._since = speaker, time.monotonic()
            self._caller = caller
            if ticket is not None and self._first() is ticket:
                self._waiting.popleft()
            return True

    def _is_free(self) -> bool:
        if self._speaker is None:
            return True
        return not self._working.locked() and time.monotonic() - self._since > PATIENCE_S

    def _first(self) -> _Ticket | None:
        """The first of the queue whose holder is still there."""
        while self._waiting:
            ticket = self._waiting[0]()
            if ticket is not None:
                return ticket
            self._waiting.popleft()
        return None

    def _pass_on(self) -> None:
        self._speaker = None
        first = self._first()
        if first is not None:
            with contextlib.suppress(RuntimeError):  # it has been told, and has yet to notice
                first.signal.release()
