"""Many requests of many threads: who computes the passes that all of them share, and who waits for what."""

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from edgeq.errors import MemoryLimitError, UsageError
from edgeq.runtime.batch import Batch, Engine
from edgeq.runtime.request import Drawn, Request
from edgeq.runtime.sequence import Sequence as Evaluated

Result = TypeVar("Result")

AHEAD = 16  # tokens of a request that nobody fetches, while others are waited for
PATIENCE_S = 0.25  # who waits looks again: the one that should have woken it may be gone


class _Ticket:
    """Somebody who waits for one of some requests; a lock is the signal that one may be there."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.signal = threading.Lock()
        self.signal.acquire()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has been told, and has yet to notice
            self.signal.release()


class Scheduler:
    """Computes requests together, in the order in which they were made, each token only once somebody waits.

    A request that is waited for alone is computed by the thread that waits. Several are by a thread of their own, which
    is there as long as there are several: none of them is hit by another one's interrupt, and each is up to AHEAD
    tokens ahead of who fetches them.

    An interrupt may come at any place: plain locks are held by `with` alone, a request or a ticket whose holder is gone
    is none, and nothing that is called when something is dropped takes a lock.
    """

    def __init__(self, engine: Engine, spill: Callable[[], bool] = lambda: False) -> None:
        self.batch = Batch(engine, spill)
        self._gate, self._passing = (
            threading.Lock(),
            threading.Lock(),
        )  # whoever computes goes through one into the other
        self._state = threading.Lock()  # of what follows
        self._requests: list[weakref.ref[Request]] = []
        self._tickets: list[weakref.ref[_Ticket]] = []
        self._driver: threading.Thread | None = None
        self._left = deque[Request]()  # requests that will not go on
        self._closed = False

    def add(self, request: Request) -> None:
        """Queue a request. It is computed once somebody waits, and dropped with who holds it."""
        with self._state:
            if not request.queued:
                request.queued, request.asked = True, time.perf_counter()
                there = sorted([*self._there(), request], key=lambda one: one.number)
                self._requests = [weakref.ref(one) for one in there]

    def next(self, request: Request) -> Drawn | None:
        """The next token of a request that was added; None at its end. Raises what ended it early."""
        if not request.ready:
            self.wait([request])
        if request.ready:
            return request.ready.popleft()
        if request.error is not None:
            raise request.error
        return None

    def wait(self, requests: Sequence[Request]) -> None:
        """Return once one of these has a token, or can have none any more."""
        ticket: _Ticket | None = None
        while not any([request.settled for request in requests]):
            with self._state:
                lone = self._is_lone(requests)
                if not lone:
                    if ticket is None:
                        ticket = _Ticket(requests)
                        self._tickets = [*map(weakref.ref, self._waiting()), weakref.ref(ticket)]
                    lone = not self._drive_elsewhere()
            if lone:
                self._compute(requests)
            elif ticket is not None:
                ticket.signal.acquire(timeout=PATIENCE_S)

    def leave(self, request: Request) -> None:
        """Nobody wants any more of a request: its text is kept for others. Called at any moment: it must not wait."""
        request.cancel()
        self._left.append(request)

    def cancel(self, request: Request) -> None:
        """As `leave`, by another thread than the one that waits for it, which is told."""
        self.leave(request)
        with self._state:
            self._wake()

    def alone(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, during which no pass is computed. It is begun again if it finds no room for pages."""
        with self._gate, self._passing:
            try:
                return work()
            except MemoryLimitError:
                self._drop_pages()
                return work()

    def with_text(self, tokens: list[int], work: Callable[[Evaluated], Result]) -> Result:
        """The result of `work` on a sequence that has evaluated what is known of a text, which is kept for others."""

        def lend() -> Result:
            self._sweep()
            sequence = self.batch.prefixes.take(tokens, len(tokens)) or self.batch.new()
            try:
                return work(sequence)
            finally:
                self.batch.prefixes.keep(tokens, sequence)

        return self.alone(lend)

    def close(self) -> None:
        """Give up all pages, after the pass that is being computed. Requests that go on fail."""
        self._closed = True
        with self._gate, self._passing:
            self._drop_pages()
        with self._state:
            self._wake()

    def _drop_pages(self) -> None:
        with self._state:
            there = self._there()
        for request in [*there, *self._left]:
            request.sequence = None
        self.batch.clear()

    def _sweep(self) -> None:
        """Keep the texts of requests that nobody wants any more."""
        while self._left:
            self.batch.let_go(self._left.popleft())

    def _there(self) -> list[Request]:
        """The requests that somebody holds and that can go on, or have pages; the oldest first."""
        there = [request for each in self._requests if (request := each()) is not None]
        return [request for request in there if request.open or request.sequence is not None]

    def _waiting(self) -> list[_Ticket]:
        return [ticket for each in self._tickets if (ticket := each()) is not None]

    def _wanted(
        self, there: Sequence[Request], waiting: Sequence[_Ticket], asked: Collection[Request] = ()
    ) -> list[Request]:
        """Those that the next pass is for, where these are asked for, too."""
        groups = {request.group for ticket in waiting for request in ticket.requests}
        groups |= {request.group for request in asked}
        return [one for one in there if one.open and (one.group in groups or (one.begun and len(one.ready) < AHEAD))]

    def _is_lone(self, requests: Sequence[Request]) -> bool:
        """Whether nothing but one request, one of these, is to be computed, and no thread is there for it."""
        if self._driver is not None and self._driver.is_alive():
            return False
        return len(self._wanted(self._there(), self._waiting(), requests)) == 1

    def _drive_elsewhere(self) -> bool:
        """See that there is a thread that computes; False if there cannot be one."""
        if self._driver is not None and self._driver.is_alive():
            return True
        self._driver = threading.Thread(target=self._drive, name="edgeq-passes", daemon=True)
        try:
            self._driver.start()
        except RuntimeError:  # no more threads here
            self._driver = None
            return False
        return True

    def _drive(self) -> None:
        """Compute as long as several are wanted: a single one's caller does it itself."""
        while True:
            with self._state:
                if len(self._wanted(self._there(), self._waiting())) < 2:
                    self._driver = None
                    self._wake()
                    return
            self._compute()

    def _compute(self, asked: Collection[Request] = ()) -> None:
        """One pass for all that are wanted by now, or for these alone."""
        with self._gate, self._passing:
            self._sweep()
            with self._state:
                there = self._there()
                wanted = self._wanted(there, self._waiting(), asked)
            if asked:
                wanted = [request for request in wanted if request in asked]
            try:
                if self._closed:
                    raise UsageError("the model is closed: load it again")
                self.batch.step(wanted, [request for request in there if request not in wanted])
            except Exception as error:
                for request in wanted:
                    request.fail(error)
        with self._state:
            self._wake()

    def _wake(self) -> None:
        """Tell those whose requests may be there."""
        driven = self._driver is not None
        if not self._tickets:
            return
        for ticket in self._waiting():
            if not driven or any(request.settled for request in ticket.requests):
                ticket.wake()
