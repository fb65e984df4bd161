"""What a model writes: it completes texts, one or many at a time."""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from edgeq.adapters.given import Lora
from edgeq.decode.sampler import Sampler
from edgeq.decode.sampler_steps import Sampling
from edgeq.decode.step import Text
from edgeq.decode.stops import StopStrings
from edgeq.engine import saved_texts
from edgeq.engine.answer import Answer, Generated, Generation, while_wanted
from edgeq.engine.answers import Answers
from edgeq.engine.arguments import check_count, check_numbers, stop_strings, token_ids
from edgeq.engine.open_model import OpenModel
from edgeq.engine.shared_session import SharedSession
from edgeq.engine.timings import Timings
from edgeq.errors import UsageError
from edgeq.talk.conversing import Asked
from edgeq.text.tokenizer import FILES

if TYPE_CHECKING:
    from edgeq.engine.seeing import Sight

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
Made = TypeVar("Made", bound=Answer)
Make = Callable[[Generation, Iterator[str]], Made]


class Writing(OpenModel):
    """A model that completes texts."""

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        n: None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        n: int,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answers: ...

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        n: int | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer | Answers:
        """Complete a text. The answer is computed as it is iterated over: `for piece in model.generate("Once"):`.

        `prompt` is text, to which the tokenizer adds what the model expects (bos), or token ids taken as they are.
        Ends at an end-of-text token, before a stop string, after `max_tokens`, or when the context is full.
        `logprobs` notes each token's probability and the so many likeliest ones (`Answer.logprobs`): the model's own
        distribution, before any sampling option. `speculate` computes tokens that are easy to guess several at a time,
        where that is faster; it changes no token.

        The other options are those of `Sampling`: `temperature=0` always takes the likeliest token, the same `seed`
        gives the same text. They are by default the model's own (`sampling_defaults`), if it has some.

        `n` gives so many answers to one prompt, which is computed once (see `Answers`); with a `seed` the further ones
        have those that follow it.

        Raises ContextError for a prompt that does not fit, UsageError for a value that cannot work or a closed model;
        of an adapter CheckpointError for one that is damaged or another model's, UnsupportedError for one that is no
        plain LoRA.
        """
        began = time.perf_counter()
        self._check_open()
        if n is not None:
            seed, each = sampling.get("seed"), [sampling] * check_count(n)
            if seed is not None:
                each = [{**sampling, "seed": seed + number} for number in range(n)]
            return self._answers([prompt] * n, max_tokens, stop, logprobs, each, speculate, lora)
        asked, shared = _text_asked(self._tokens(prompt), len(prompt) > 0), self._session_for(lora)
        return self._answer(asked, Answer, max_tokens, stop, logprobs, sampling, began, shared, speculate=speculate)

    def batch(
        self,
        prompts: Sequence[Prompt],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answers:
        """Complete many texts, or answer many conversations, together: each answer is the one that `generate`, or
        `chat`, gives with the same options, and all of them take far less time than one after the other.

        What prompts have in common at their beginning is computed once. Where keys and values of all do not fit in
        memory, some wait for others to end. Raises as `generate` and `chat` do.
        """
        self._check_open()
        return self._answers(list(prompts), max_tokens, stop, logprobs, [sampling] * len(prompts), speculate, lora)

    def agenerate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncIterator[str]:
        """As `generate`, for `async for` alone: the answer is cancelled with the task that iterates over it."""
        return while_wanted(
            self.generate(prompt, max_tokens, stop=stop, logprobs=logprobs, speculate=speculate, lora=lora, **sampling)
        )

    def generate_tokens(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        logprobs: int | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generated[int]:
        """As `generate`, but token ids: all that a model without a tokenizer can read and write.

        A token that ends the text is not among those that are iterated over.
        """
        return self.tokens_after(self._tokens(prompt), None, max_tokens, logprobs, sampling, speculate, lora)

    def tokens_after(
        self,
        tokens: list[int],
        images: "Sight | None",
        max_tokens: int | None,
        logprobs: int | None,
        sampling: Sampling,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
    ) -> Generated[int]:
        """As `generate_tokens`, of a prompt in which what `sight` gave stands, if it gave something."""
        began = time.perf_counter()
        self._check_open()
        shared = self._session_for(lora)
        generation = self._generation(
            tokens, max_tokens, logprobs, sampling, began, shared, speculate=speculate, images=images
        )
        return Generated(generation, self._ids(generation, shared))

    def save_prefix(
        self, path: str | os.PathLike[str], prompt: str | Sequence[int], about: Mapping[str, Any] | None = None
    ) -> int:
        """Evaluate a prompt and write it to a file (`.eqp`) with all that the model keeps of it: texts that begin with
        it begin at once, in any process that loads the file, on any CPU. How many tokens it has.

        `about` is kept with it, and is handed out again: anything that JSON holds. Raises as `generate`, OutputError
        for a file that cannot be written.
        """
        self._check_open()
        tokens = self._tokens(prompt)
        for _ in self.generate_tokens(tokens, 1, temperature=0.0):
            pass
        return saved_texts.save(self._shared, self.session, path, tokens, about or {})

    def save_text(self, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> int:
        """As `save_prefix`, the prompt and the tokens of the latest answer, as far as they are evaluated."""
        self._check_open()
        if self._latest.mixed is not None:
            raise UsageError("the latest answer's text has images, and a text with images cannot be saved")
        return saved_texts.save(self._shared, self.session, path, self._latest.sequence, about or {})

    def load_prefix(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Know a text that was saved; what was said `about` it. Raises FormatError for a file that is damaged or none,
        UsageError for one of another model, KV cache or context."""
        self._check_open()
        return saved_texts.load(self._shared, self.session, path)[1]

    def _generation(
        self,
        tokens: list[int],
        max_tokens: int | None,
        logprobs: int | None,
        sampling: Sampling,
        began: float,
        shared: SharedSession,
        group: object = None,
        speculate: bool = True,
        images: "Sight | None" = None,
    ) -> Generation:
        """A generation, checked and ready to run."""
        check_numbers(max_tokens, logprobs, sampling)
        if not isinstance(speculate, bool):
            raise UsageError(f"speculate is {speculate!r}: it must be True or False")
        options: Sampling = {**self.sampling_defaults, **sampling}
        room = self.context + 1 - len(self._checked(tokens))  # the last token is drawn but takes no position
        generation = Generation(
            sequence=list(tokens),
            prompt_tokens=len(tokens),
            max_tokens=room if max_tokens is None else min(max_tokens, room),
            limit="context" if max_tokens is None or max_tokens > room else "max_tokens",
            sampler=Sampler(self._text_of(tokens), **options),
            logprobs=logprobs,
            mixed=None if images is None else images.mixed(tokens),
            prepared_s=time.perf_counter() - began,  # also what seeing took
            timings=Timings(load_s=self.load_s),
        )
        shared.prepare(generation, self.end_ids, group, speculate)
        self._latest = generation
        for watch in self._watches if images is None else ():  # it knows texts alone
            watch.saw(tokens)
        return generation

    def _text_of(self, tokens: list[int]) -> Text:
        """What steps of the sampler may know of a text that begins with these."""
        known = self.file.assets.keys() & {*FILES}
        return Text(len(tokens), self.vocab_size, (lambda token: self.tokenizer.piece_bytes(token)) if known else None)

    def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else token_ids(prompt)

    def _begun(self, prompt: Prompt) -> tuple[Asked, Make[Answer]]:
        """What is asked for with a prompt, and what makes the answer."""
        return _text_asked(self._tokens(cast(str | Sequence[int], prompt)), len(prompt) > 0), Answer

    def _answer(
        self,
        asked: Asked,
        make: Make[Made],
        max_tokens: int | None,
        stop: str | Sequence[str],
        logprobs: int | None,
        sampling: Sampling,
        began: float,
        shared: SharedSession,
        group: object = None,
        speculate: bool = True,
    ) -> Made:
        tokens, grammar = asked["tokens"], asked["grammar"]
        if grammar is not None:
            if sampling.get("allowed") is not None:
                raise UsageError("tools and schemas say themselves which tokens are allowed: leave out one of the two")
            sampling = {**sampling, "allowed": grammar.guide(len(tokens))}
        stops, sight = StopStrings(stop_strings(stop)), cast("Sight | None", asked["images"])
        generation = self._generation(tokens, max_tokens, logprobs, sampling, began, shared, group, speculate, sight)
        return make(generation, self._text(generation, shared, stops, asked))

    def _answers(
        self,
        prompts: Sequence[Prompt],
        max_tokens: int | None,
        stop: str | Sequence[str],
        logprobs: int | None,
        samplings: Sequence[Sampling],
        speculate: bool,
        lora: Sequence[Lora] | None,
    ) -> Answers:
        group, answers, shared = object(), [], self._session_for(lora)
        for prompt, sampling in zip(prompts, samplings, strict=True):
            began = time.perf_counter()
            asked, make = self._begun(prompt)
            answers.append(
                self._answer(asked, make, max_tokens, stop, logprobs, sampling, began, shared, group, speculate)
            )
        shared.add(answers)
        return Answers(answers, shared.scheduler.wait)

    def _text(self, generation: Generation, shared: SharedSession, stops: StopStrings, asked: Asked) -> Iterator[str]:
        """The text of a generation, ended by eos, a stop string or its limit."""
        stream, said = self.tokenizer.stream(continues=asked["continues"], shown=asked["shown"]), generation.text
        ids = self._ids(generation, shared)
        for token in ids:
            if text := stops.push(stream.push(token)):
                said.append(text)
                yield text
            if stops.reached:
                generation.finish_reason = "stop"
                break
        cut = generation.finish_reason != "eos"
        rest = stops.push(stream.flush(cut)) + stops.flush()
        if stops.reached:
            generation.finish_reason = "stop"
        if rest:
            said.append(rest)
            yield rest

    def _ids(self, generation: Generation, shared: SharedSession) -> Iterator[int]:
        """The tokens of a generation, ended by eos or its limit."""
        ends = self.end_ids
        for token in shared.draw(generation, self._check_open):
            if token in ends:
                generation.finish_reason = "eos"
                return
            yield token
        if generation.request is None or generation.request.complete:
            generation.finish_reason = generation.limit


def _text_asked(tokens: list[int], continues: bool) -> Asked:
    """What is asked for with a text. `continues`: a leading space belongs to what comes, as the text has begun."""
    return {
        "tokens": tokens,
        "grammar": None,
        "continues": continues,
        "parser": None,
        "shown": frozenset(),
        "images": None,
    }
