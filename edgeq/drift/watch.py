"""Watches what a model that serves is given, at a small share of its time.

The tokens of all prompts are counted, which costs nothing. Now and then a part of a prompt runs once more, in a
program of its own over the same weights, that shows what some of the matrices read; never while an answer is computed,
and no more often than a share of the time allows.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Self

from edgeq.container.reader import File
from edgeq.drift.look import LEAST, Looker
from edgeq.drift.seen import seen_by
from edgeq.drift.tally import RECENT, Alert, Report, Tally
from edgeq.errors import EdgeqError

BUDGET = 0.02  # of the time
INPUTS = 12  # that are watched: of all layers some
WINDOW = 12  # texts, the latest that were looked at
TOKEN_WINDOW = 32  # texts whose tokens count
NAME = "traffic"

Alone = Callable[[Callable[[], None]], None]  # does work while nobody else computes


class Watch:
    """Says whether what a model is given is still what it was calibrated with. Made by `Model.watch`; ends with its
    `with` block, with `close`, or with the model."""

    def __init__(
        self,
        file: File,
        alone: Alone,
        threads: int | None = None,
        budget: float = BUDGET,
        announce: Callable[[str], None] | None = None,
        left: Callable[["Watch"], None] | None = None,
    ) -> None:
        """UsageError for a file that does not say what it was calibrated with; else as `Session`."""
        seen = seen_by(file)
        names = [*seen.inputs]
        stride = -(-len(names) // INPUTS) | 1  # an odd one: layers have an even number of them
        self._looker = Looker(file, names[::stride], threads, announce)
        self._tally = Tally(seen, NAME, WINDOW, TOKEN_WINDOW, RECENT)
        self._alone, self._budget, self._left = alone, budget, left
        self._places = Random(0)  # of prompts, where they are looked at
        self._state = threading.Condition()  # of what follows
        self._next: list[int] | None = None
        self._closed = False
        self._rest = 0.0  # when the next look may begin
        self.spent = 0.0  # seconds that looking took
        self.failure = ""  # why nothing is looked at any more
        self._thread = threading.Thread(target=self._watch, name="edgeq-watch", daemon=True)
        self._thread.start()

    def saw(self, tokens: Sequence[int]) -> None:
        """Hear of a prompt. Returns at once; a model tells its own."""
        with self._state:
            self._tally.count(tokens)
            if len(tokens) >= LEAST:
                self._next = self._tally.seen.part(tokens, self._places.random())
                self._state.notify()

    def report(self) -> Report:
        """What is known of the latest prompts."""
        with self._state:
            return self._tally.report()

    @property
    def alerts(self) -> list[Alert]:
        """What is above a limit, the worst first: an alert or a warning a line, as text."""
        return self.report().alerts

    def gauges(self) -> Mapping[str, float]:
        """Numbers by name, for a server to export."""
        return {**self.report().gauges(), "seconds_spent": self.spent}

    def _watch(self) -> None:
        while True:
            with self._state:
                while not self._closed and (self._next is None or time.monotonic() < self._rest):
                    pause = None if self._next is None else max(self._rest - time.monotonic(), 0.0)
                    self._state.wait(pause)
                if self._closed:
                    return
                tokens, self._next = self._next, None
            try:
                self._alone(lambda given=tokens or []: self._look(given))  # type: ignore[misc]
            except EdgeqError as error:  # the model is closed, or has no room
                self.failure = str(error)
                return

    def _look(self, tokens: Sequence[int]) -> None:
        began = time.monotonic()
        text = self._tally.read(self._looker, tokens)
        ended = time.monotonic()
        with self._state:
            self._tally.add(text)
            self.spent += ended - began
            self._rest = ended + (ended - began) / self._budget

    def close(self) -> None:
        """End watching. What is known stays."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._looker.close()
        if self._left:
            self._left(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
