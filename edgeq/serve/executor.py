"""Threads for work: a few at a time, each for one piece of it.

A thread that stays keeps memory of every size that it ever gave back, as malloc has a cache for each thread: the longer
it lives the more. What a thread has kept that ends, others get.
"""

import asyncio
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Piece = tuple[Future[Any], Callable[[], Any]]


class Executor:
    """Does at most `at_once` pieces of work at a time, begun in the order in which they came."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._state = threading.Condition()  # of what follows
        self._waiting = deque[Piece]()
        self._threads = 0
        self._closed = False

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """What will come of `work`. Raises RuntimeError once this is closed, and where there can be no thread."""
        future: Future[Result] = Future()
        with self._state:
            if self._closed:
                raise RuntimeError("closed: takes no more work")
            if self._threads >= self._at_once or not self._began((future, work)):
                self._waiting.append((future, work))
        return future

    def close(self) -> None:
        """Cancel what has not begun, and wait for what has."""
        with self._state:
            self._closed = True
            for future, _ in self._waiting:
                future.cancel()
            self._state.wait_for(lambda: not self._threads)

    def finish(self) -> None:
        """Wait for all that was asked for."""
        with self._state:
            self._state.wait_for(lambda: not self._threads)

    def _began(self, piece: Piece) -> bool:
        """Begin it in a thread of its own. False where there can be no more, and one that is there will come to it."""
        try:
            start_new_thread(self._run, (piece,))  # Thread.start() waits until it runs, and the event loop with it
        except (RuntimeError, MemoryError):
            if not self._threads:
                raise
            return False
        self._threads += 1
        return True

    def _run(self, piece: Piece | None) -> None:
        while piece is not None:
            _do(*piece)
            piece = self._after()

    def _after(self) -> Piece | None:
        """Begin the next piece in a thread of its own; where there can be none it is this one's."""
        with self._state:
            if self._waiting:
                piece = self._waiting.popleft()
                if not self._began(piece):  # this thread still counts, so it does not raise
                    return piece
            self._threads -= 1
            self._state.notify_all()
            return None


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        del future  # the error has this frame
    else:
        future.set_result(result)


_SHORT = Executor(8)


async def in_thread(work: Callable[Arguments, Result], *given: Arguments.args, **named: Arguments.kwargs) -> Result:
    """The result of what would hold up the event loop, if not for long: as asyncio.to_thread, whose threads stay, but
    without the caller's context variables."""
    return await asyncio.wrap_future(_SHORT.submit(partial(work, *given, **named)))


def finish() -> None:
    """Wait for what `in_thread` has begun, also for those who ask no more."""
    _SHORT.finish()
