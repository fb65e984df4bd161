"""A text that is to be written: its prompt, how its tokens are chosen, and those that nobody has fetched yet."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.runtime.mixed_text import Mixed, around
from edgeq.runtime.sequence import Sequence as Evaluated

Choose = Callable[[npt.NDArray[np.float32], list[int]], tuple[int, Any]]

_NUMBERS = itertools.count()


class Guesser(Protocol):
    """Guesses tokens of one text, which are computed along with the one before them where that is worth it."""

    def draft(self, tokens: list[int], room: int) -> list[int]:
        """At most `room` tokens that may come next, to be computed along with the last of `tokens`."""

    def drawn(self, token: int) -> None:
        """What came next."""

    def took(self, rows: int, seconds: float) -> None:
        """A pass of so many rows, for this text alone."""

    def stop(self) -> None:
        """Draft no more: what is computed along costs too much to take back."""


class Drawn(NamedTuple):
    """A token.

    note: what else was found when it was chosen
    seconds: what it took: the pass and the choice; of the first token from when it was asked for
    """

    token: int
    note: Any
    seconds: float


class Request:
    """Up to `most` tokens after a prompt. A scheduler computes them; anybody may `cancel` it at any time.

    choose: from logits f32 [vocab] and the tokens before: the next one, and a note for who fetches it. What it raises
            ends this request alone. It is called once for each token, in their order
    ends: tokens that end the text; the one that does is drawn, too
    group: requests of one group are computed as long as somebody waits for one of them
    guesser: guesses tokens, where that is wanted
    mixed: the prompt where it has rows that stand for images

    number: its place among all requests, by when they were made
    tokens: the prompt and what was drawn, be it fetched or not; of rows of images their keys
    sequence: how far they are evaluated; None before it is begun, and where it had to give its pages to others
    whole: rows of an image at most, which a pass must not split; 0 where it may
    queued: whether a scheduler knows it
    begun: whether a pass had rows of it
    started_over: whether it gave up its pages when it alone had some
    cached, computed, prompt_s: tokens of the prompt that were known from other texts, those computed, and how long
    drafted, accepted: tokens that were computed along as guesses, and those of them that were drawn
    """

    def __init__(
        self,
        tokens: Sequence[int],
        most: int,
        choose: Choose,
        ends: Collection[int] = (),
        group: object = None,
        guesser: Guesser | None = None,
        mixed: Mixed | None = None,
    ) -> None:
        self.number = next(_NUMBERS)
        self.tokens = list(tokens if mixed is None else mixed.keys)
        self._asked = None if mixed is None else mixed.tokens
        self.given = None if mixed is None else mixed.given
        self.whole = 0 if mixed is None else mixed.whole
        self.prompt = len(self.tokens)
        self.most, self.choose, self.ends = most, choose, ends
        self.group = self if group is None else group
        self.guesser = guesser
        self.sequence: Evaluated | None = None
        self.ready = deque[Drawn]()
        self.error: BaseException | None = None
        self.complete = most < 1
        self.cancelled = False
        self.queued = self.begun = self.started_over = False
        self.cached = self.computed = 0
        self.prompt_s = 0.0
        self.drafted = self.accepted = 0
        self.asked = time.perf_counter()

    @property
    def seen(self) -> list[int]:
        """`tokens` as its chooser and its guesser see them: ids alone."""
        return self.tokens if self._asked is None else [*self._asked, *self.tokens[self.prompt :]]

    @property
    def position(self) -> int:
        """How many tokens are evaluated."""
        return 0 if self.sequence is None else self.sequence.position

    @property
    def behind(self) -> int:
        """How many are not."""
        return len(self.tokens) - self.position

    def piece(self, count: int) -> int:
        """How many of the next `count` tokens a pass can take, which must split no image: fewer, or all of one."""
        if not self.whole:
            return count
        first, end = around(self.tokens, self.position + count)
        return (first if first > self.position else end) - self.position

    @property
    def room(self) -> int:
        """How many tokens can come after the next one."""
        return self.most - (len(self.tokens) - self.prompt) - 1

    @property
    def open(self) -> bool:
        """Whether more tokens can come."""
        return not (self.complete or self.cancelled or self.error)

    @property
    def settled(self) -> bool:
        """Whether who waits for it need not wait any more."""
        return bool(self.ready) or not self.open

    def cancel(self) -> None:
        """No further token is wanted."""
        self.cancelled = True

    def fail(self, error: BaseException) -> None:
        """It cannot go on, for this reason, which is raised once what was drawn before is fetched."""
        if isinstance(error, EdgeqError):
            error = error.with_traceback(None)  # its frames would hold pages that others wait for
        self.error = error

    def draw(self, logits: npt.NDArray[np.float32], seconds: float) -> None:
        """Choose the next token, after a pass of so many seconds."""
        clock = time.perf_counter()
        try:
            token, note = self.choose(logits, self.seen)
        except Exception as error:
            self.fail(error)
            return
        if self.guesser is not None:
            self.guesser.drawn(token)
        now = time.perf_counter()
        took = now - self.asked if len(self.tokens) == self.prompt else seconds + now - clock
        self.tokens.append(token)
        self.ready.append(Drawn(token, note, took))
        self.started_over = False
        self.complete = token in self.ends or len(self.tokens) - self.prompt >= self.most
