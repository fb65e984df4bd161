"""An answer as it is generated: its pieces one by one, or its text as a whole."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from edgeq.engine.timings import Timings

if TYPE_CHECKING:
    from edgeq.decode.sampler import Sampler
    from edgeq.runtime.mixed_text import Mixed
    from edgeq.runtime.request import Request

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
    prepared_s: float = 0.0  # what tokenizing took
    request: "Request | None" = None  # its place among those that are computed
    mixed: "Mixed | None" = None  # the prompt where it has images
    cancel: Callable[[], None] = lambda: None  # ends the request
    text: list[str] = field(default_factory=list)
    scores: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    timings: Timings = field(default_factory=Timings)


class Generated(Generic[Piece]):
    """What a model generates, computed only as it is asked for: an iterator, for `for` and for `async for`.

    One that is not iterated to its end computes nothing further, at most a few tokens while others are computed; other
    answers of the same model may begin meanwhile, in any thread. They are computed together, and none changes another.
    """

    def __init__(self, generation: Generation, pieces: Iterator[Piece]) -> None:
        self._generation = generation
        self._pieces = pieces
        self._stepping = threading.Lock()  # its own steps come one after the other, whoever asks for them
        self._thread: ThreadPoolExecutor | None = None  # computes what async code waits for
        self._pending: Future[Piece | None] | None = None  # asked for by a task, and not handed out yet

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

    @property
    def request(self) -> "Request | None":
        """What is computed for it."""
        return self._generation.request

    def cancel(self) -> None:
        """Compute no more of it, and do not wait: who is waiting for a piece, in any thread, finds the end."""
        self._generation.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def close(self) -> None:
        """End it here, after the pass that is being computed. Any thread may."""
        self.cancel()
        with self._stepping:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        if self._pending is not None:
            piece = self._pending.result()
            self._pending = None
        else:
            piece = self._step()
        if piece is None:
            raise StopIteration
        return piece

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        """The next piece, computed in a thread of its own, so that the event loop goes on meanwhile. If the task is
        cancelled, the piece that it waited for comes next."""
        if self._pending is None:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="edgeq-answer")
            self._pending = self._thread.submit(self._step)
        try:
            piece = await asyncio.shield(asyncio.wrap_future(self._pending))
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._pending = None
            raise
        self._pending = None
        if piece is None:
            self._thread = None  # which ends with the last that holds it
            raise StopAsyncIteration
        return piece

    def _step(self) -> Piece | None:
        """The next piece; None at the end."""
        with self._stepping:
            return next(self._pieces, None)


class Answer(Generated[str]):
    """A text that a model generates: iterate over its pieces as they become known, or take `text`."""

    @property
    def text(self) -> str:
        """The whole text; what is still to come is generated first. After an error or Ctrl-C it is what came before."""
        for _ in self:
            pass
        return "".join(self._generation.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        begun = "".join(self._generation.text)
        return f"<edgeq.Answer {begun!r:.60}: {self.finish_reason or 'not ended'}>"


async def while_wanted(answer: Generated[Piece]) -> AsyncIterator[Piece]:
    """The pieces of an answer that ends with the task that iterates over it."""
    try:
        async for piece in answer:
            yield piece
    finally:
        answer.cancel()
