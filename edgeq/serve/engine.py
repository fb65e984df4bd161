"""The server's door to a model: requests go in, pieces of text come out, in an event loop that is never held up.

All that knows how a model computes is here. Each request has a thread that waits for its tokens; the passes of a model
are shared by all that are under way, and further ones wait in the order in which they came.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edgeq.decode.sampler import Sampler
from edgeq.decode.sampler_steps import Sampling
from edgeq.decode.stops import StopStrings
from edgeq.engine.answer import Generated, TokenLogprob
from edgeq.engine.arguments import check_numbers
from edgeq.engine.shared_session import logprob
from edgeq.engine.timings import Timings
from edgeq.errors import ContextError, TemplateError, UsageError
from edgeq.serve.executor import Executor
from edgeq.serve.failures import Failure
from edgeq.talk.conversing import Speaker
from edgeq.talk.dialect import Dialect
from edgeq.talk.grammar import Grammar, Grammars
from edgeq.talk.guides import Plan
from edgeq.talk.parser import Parser
from edgeq.talk.said import Said

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.engine.model import Model

Result = TypeVar("Result")

AT_ONCE = 16  # requests that are computed at the same time, of all models


@dataclass(frozen=True)
class Wanted:
    """A text to be generated.

    tokens     the prompt
    stop       texts before which it ends
    logprobs   how many likeliest tokens to tell of with each token; None tells nothing
    sampling   options of the sampler
    grammar    what the text must follow
    parser     makes what tells the parts of the text apart; None where there is nothing to be told apart
    shown      control tokens that it must see
    continues  whether a leading space belongs to the text, as it goes on from the prompt's own
    images     those that stand in the prompt
    """

    tokens: list[int]
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    grammar: Grammar | Plan | None = None
    continues: bool = False
    parser: Callable[[], Parser] | None = None
    shown: frozenset[int] = frozenset()
    images: Any = None

    def numbered(self, number: int) -> "Wanted":
        """The same for another choice of the same request: with a seed of its own, if it has one."""
        seed = self.sampling.get("seed")
        return self if not number or seed is None else replace(self, sampling={**self.sampling, "seed": seed + number})


@dataclass(frozen=True)
class Piece:
    """Text that became known, with the tokens that made it and what was thought of them. `said` are its parts; where
    a model's marks are told apart, `text` is what of it is the answer."""

    text: str
    tokens: list[int]
    scores: Sequence[TokenLogprob | None]
    said: Sequence[Said] = ()


@dataclass(frozen=True)
class End:
    """Why a text ended: "stop" (the model, or a stop string: `stopped_by`), "tool_calls", "length", or "cancelled"."""

    reason: str
    stopped_by: str | None = None


class Job:
    """A text under way. `events` gives its pieces and then its end."""

    def __init__(self, wanted: Wanted, loop: asyncio.AbstractEventLoop) -> None:
        self.wanted = wanted
        self.timings = Timings()
        self.submitted = time.monotonic()
        self.began: float | None = None
        self.cancelled = False
        self._loop = loop
        self._events: asyncio.Queue[Piece | End | Exception] = asyncio.Queue()
        self._future: Future[None] | None = None
        self._answer: Generated[int] | None = None

    @property
    def queued_s(self) -> float:
        """Seconds that it waited for others."""
        return (self.began if self.began is not None else time.monotonic()) - self.submitted

    @property
    def evaluated(self) -> int:
        """Tokens of the prompt that are computed, or were known."""
        request = None if self._answer is None else self._answer.request
        return 0 if request is None else min(request.position, len(self.wanted.tokens))

    def cancel(self) -> None:
        """Compute no further pass for it. In the event loop's thread."""
        if not self.cancelled:
            self.cancelled = True
            if self._future is not None:
                self._future.cancel()
            if self._answer is not None:
                self._answer.cancel()
            self._events.put_nowait(End("cancelled"))

    async def events(self, heartbeat: float) -> AsyncIterator[Piece | End | None]:
        """Its pieces and then its end; None where nothing came for `heartbeat` seconds. Raises what went wrong."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), heartbeat)
            except TimeoutError:
                yield None
                continue
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, End):
                return

    def tell(self, event: Piece | End | Exception) -> None:
        """From the thread that computes."""
        if not self.cancelled:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Engine:
    """One model and its queue."""

    def __init__(
        self,
        model: "Model",
        turns: Executor,
        most_waiting: int,
        ended: Callable[[Job, str], None] = lambda job, reason: None,
    ) -> None:
        """`turns` computes; beyond `most_waiting` requests that wait for it, further ones are refused. `ended` hears of
        each text why it ended, or "error"."""
        self.model, self._told_end = model, ended
        self._turns, self._most_waiting = turns, most_waiting
        self._lock = threading.Lock()
        self._submitted = self._begun = self._ended = 0
        self._jobs = set[Job]()
        self._typical_s = 1.0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._submitted - self._begun

    @property
    def running(self) -> int:
        """Requests that are computed now."""
        return self._begun - self._ended

    @property
    def jobs(self) -> list["Job"]:
        """Texts that are computed now, the oldest first."""
        with self._lock:
            return sorted(self._jobs, key=lambda job: job.submitted)

    @property
    def kept(self) -> tuple[int, int]:
        """Bytes of keys and values that are in use, and that there is room for."""
        pool = self.model.session.program.pool
        return pool.used, pool.budget

    def submit(self, wanted: Wanted, admitted: bool = False) -> Job:
        """Put a request into the queue: `admitted` past its bound. In the event loop's thread.

        Raises Failure where too many wait, and what `Model.generate` raises for a prompt or an option that cannot work.
        """
        self.check(wanted)
        job = Job(wanted, asyncio.get_running_loop())
        job._future = self._enqueue(lambda: self._generate(job), admitted)
        return job

    async def compute(self, work: Callable[["Model"], Result]) -> Result:
        """The result of something else that the model does, when its turn comes."""
        return await asyncio.wrap_future(self._enqueue(lambda: work(self.model), False))

    def check(self, wanted: Wanted) -> None:
        """Raise what `Model.generate` would for this prompt and these options, before anything is computed."""
        model, ids = self.model, wanted.tokens
        if model.session.states:
            raise UsageError("the model is loaded to embed texts (/v1/embeddings), and writes none")
        if not ids:
            raise UsageError("the prompt is empty, and the model has no token that begins a text: give some text")
        if len(ids) > model.context:
            raise ContextError(
                f"the prompt has {len(ids)} tokens, the model's context is {model.context} tokens: shorten the prompt"
            )
        outside = next((token for token in ids if not 0 <= token < model.vocab_size), None)
        if outside is not None:
            raise UsageError(f"token {outside} is not in the model's vocabulary of {model.vocab_size}")
        check_numbers(wanted.max_tokens, wanted.logprobs, wanted.sampling)
        options: Sampling = {**model.sampling_defaults, **wanted.sampling}
        Sampler(**options)
        StopStrings(wanted.stop)

    @cached_property
    def grammars(self) -> Grammars:
        """Compiles schemas for this model."""
        return Grammars(self.model.tokenizer, self.model.vocab_size)

    @cached_property
    def speaker(self) -> Speaker:
        """Has the model answer conversations. Raises TemplateError where it has no template."""
        if not self.model.has_chat_template:
            raise TemplateError("the model has no chat template: complete plain text (/v1/completions) instead")
        return Speaker(self.model.chat_template, self.model.tokenizer, self.grammars, self.model.reserved)

    @property
    def dialect(self) -> Dialect:
        """How the model speaks of thoughts and tools. Raises TemplateError as `speaker` does."""
        return self.speaker.dialect

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text; `parse_special` reads the names of control tokens in it as these."""
        return self.model.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def embed(self, texts: Sequence[str | list[int]], cut: bool) -> tuple["npt.NDArray[np.float32]", int]:
        """Vectors f32 [texts, hidden size], and how many tokens the texts have; as `work` of `compute`. What is too
        long loses its end with `cut`, and is a ContextError else."""
        embedder = self.model.embedder
        if not cut:
            for i, text in enumerate(texts):
                if embedder.tokens(text)[1]:
                    size = len(self.encode(text) if isinstance(text, str) else text)
                    most = embedder.max_length
                    raise ContextError(f"text {i + 1} has {size} tokens, the model embeds {most} tokens: shorten it")
        return self.model.embed(texts), embedder.timings.tokens

    def rerank(self, query: str, texts: Sequence[str], instruction: str | None = None) -> tuple[list[float], int]:
        """How well each text answers a query, and how many tokens there are; as `work` of `compute`."""
        scores = self.model.rerank(query, texts, instruction=instruction)
        return [float(score) for score in scores], self.model.ranking_timings.tokens

    def prompt_scores(self, tokens: list[int], top: int) -> list[TokenLogprob]:
        """What the model thinks of each token of a prompt but the first; as `work` of `compute`."""
        following = iter(tokens[1:])
        found = []
        for rows in self.model.iter_logits(tokens[:-1]) if len(tokens) > 1 else ():
            found += [logprob(row, next(following), top) for row in rows]
        return found

    def token_text(self, token: int) -> tuple[str, bytes]:
        """A token's text, control tokens by their names, and its bytes."""
        return self.model.tokenizer.decode([token], special=True), self.model.tokenizer.piece_bytes(token)

    def _enqueue(self, work: Callable[[], Result], admitted: bool) -> "Future[Result]":
        with self._lock:
            if not admitted and self.waiting >= self._most_waiting:
                soon = max(1, min(60, round(self._typical_s * self.waiting)))
                raise Failure(
                    429, f"{self.waiting} requests wait already: try again later", code="queue_full", retry_after=soon
                )
            self._submitted += 1
        try:
            future = self._turns.submit(partial(self._turn, work))
        except BaseException:  # closed, or no thread can be had
            with self._lock:
                self._submitted -= 1
            raise
        future.add_done_callback(self._drop)
        return future

    def _turn(self, work: Callable[[], Result]) -> Result:
        with self._lock:
            self._begun += 1
        clock = time.monotonic()
        try:
            return work()
        finally:
            with self._lock:
                self._ended += 1
                self._typical_s += 0.2 * (time.monotonic() - clock - self._typical_s)

    def _drop(self, future: "Future[Any]") -> None:
        if future.cancelled():  # before it began
            with self._lock:
                self._submitted -= 1

    def _generate(self, job: Job) -> None:
        with self._lock:
            self._jobs.add(job)
        try:
            end = self._run(job)
        except Exception as error:
            self._told_end(job, "error")
            job.tell(error)
        else:
            self._told_end(job, end.reason)
            job.tell(end)
        finally:
            with self._lock:
                self._jobs.discard(job)

    def _run(self, job: Job) -> End:
        """Compute a text token by token."""
        job.began, wanted = time.monotonic(), job.wanted
        stream, stops = self.model.tokenizer.stream(wanted.continues, shown=wanted.shown), StopStrings(wanted.stop)
        options: dict[str, Any] = {**wanted.sampling}
        if wanted.grammar is not None:
            options["allowed"] = wanted.grammar.guide(len(wanted.tokens))
        sampling = cast(Sampling, options)
        answer = self.model.tokens_after(wanted.tokens, wanted.images, wanted.max_tokens, wanted.logprobs, sampling)
        job.timings, job._answer = answer.timings, answer
        said, shown, told, scored = "", 0, 0, 0  # all text; of it what was handed out; tokens and scores handed out

        def tell(text: str) -> None:
            nonlocal shown, told, scored
            shown += len(text)
            scores = answer.logprobs[scored:] if wanted.logprobs is not None else []
            tokens = answer.tokens[told : -1 if answer.finish_reason == "eos" else None]
            scores = scores[: len(tokens)]
            told, scored = told + len(tokens), scored + len(scores)
            job.tell(Piece(text, tokens, scores))

        try:
            for token in answer:
                if job.cancelled:
                    return End("cancelled")
                said += (text := stream.push(token))
                if text := stops.push(text):
                    tell(text)
                if stops.reached:
                    return End("stop", _reached(said, shown, wanted.stop))
            if job.cancelled:
                return End("cancelled")
            ended = answer.finish_reason == "eos"
            said += (text := stream.flush(cut=not ended))
            rest = stops.push(text) + stops.flush()
            if stops.reached:
                if rest:
                    tell(rest)
                return End("stop", _reached(said, shown, wanted.stop))
            tell(rest)  # tokens without a text among them
            return End("stop" if ended else "length")
        finally:
            answer.close()


def _reached(said: str, shown: int, stops: Sequence[str]) -> str | None:
    """The stop string that ended a text of which `shown` characters were handed out."""
    return min((stop for stop in stops if said.startswith(stop, shown)), key=len, default=None)
