"""An answer as it is generated: its pieces one by one, or its text as a whole."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from edgeq.timings import Timings

if TYPE_CHECKING:
    from edgeq.runtime.sampler import Sampler

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token, and what the model thought of it before any sampling option was applied.

    token    its id
    logprob  natural logarithm of its probability
    top      (id, logprob) of the likeliest tokens, the likeliest first
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass
class Generation:
    """One generation: what was asked for, and what has come of it."""

    sequence: list[int]  # the prompt, and the tokens generated so far
    prompt_tokens: int
    max_tokens: int
    limit: str  # the finish_reason where max_tokens end it: "max_tokens", or "context" that leaves no room for more
    sampler: "Sampler"
    logprobs: int | None = None  # how many likeliest tokens to note with each
    began: float = field(default_factory=time.perf_counter)
    caller: object = None  # who asks for the next token: a thread or a task
    evaluated: int = -1  # the prompt cache's number when it last held this generation's tokens
    text: list[str] = field(default_factory=list)
    scores: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    timings: Timings = field(default_factory=Timings)


class Pieces(Generic[Piece]):
    """What a model generates, computed only as it is asked for: an iterator, for `for` and for `async for`.

    An answer that is not iterated to its end costs nothing further; other answers of the same model may begin
    meanwhile, in any thread, and neither changes the other.
    """

    def __init__(self, generation: Generation, pieces: Iterator[Piece]) -> None:
        self._generation = generation
        self._pieces = pieces

    @property
    def finish_reason(self) -> str | None:
        """Why it ended: "eos" (the model ended it), "stop" (a stop string), "max_tokens", or "context" (it is full);
        None while it has not."""
        return self._generation.finish_reason

    @property
    def timings(self) -> Timings:
        """What it took so far."""
        return self._generation.timings

    @property
    def tokens(self) -> list[int]:
        """Ids of the tokens generated so far; that which ended it is the last."""
        return self._generation.sequence[self._generation.prompt_tokens :]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self._generation.prompt_tokens

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Of each token so far, where `logprobs` were asked for; else empty."""
        return list(self._generation.scores)

    def close(self) -> None:
        """End it here."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        self._generation.caller = threading.get_ident()
        return next(self._pieces)

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        """The next piece, computed in another thread, so that the event loop goes on meanwhile."""
        self._generation.caller = asyncio.current_task()
        piece = await asyncio.to_thread(next, self._pieces, None)
        if piece is None:
            raise StopAsyncIteration
        return piece


class Answer(Pieces[str]):
    """A text that a model generates: iterate over its pieces as they become known, or take `text`."""

    @property
    def text(self) -> str:
        """The whole text; what is still to come is generated first."""
        for _ in self:
            pass
        return "".join(self._generation.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        begun = "".join(self._generation.text)
        return f"<edgeq.Answer {begun!r:.60}: {self.finish_reason or 'not ended'}>"
