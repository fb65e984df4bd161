"""A loaded model: complete a text, answer in a chat, look at the logits, or turn texts into vectors."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, cast, overload

from edgeq.answer import Answer, Generated, Generation
from edgeq.arguments import check_messages, check_numbers, stop_strings, token_ids
from edgeq.container.reader import File
from edgeq.decode.sampler import Sampler
from edgeq.decode.sampler_steps import Sampling
from edgeq.decode.sampling_defaults import sampling_defaults
from edgeq.decode.step import Text
from edgeq.decode.stops import StopStrings
from edgeq.errors import ContextError, TemplateError, UsageError
from edgeq.scoring import Continuation, score, split
from edgeq.shared_session import SCORED, SharedSession, log_softmax
from edgeq.speculation import Speculation
from edgeq.text.assets import read_settings
from edgeq.text.chat import ChatTemplate
from edgeq.text.tokenizer import FILES, Tokenizer, load_tokenizer
from edgeq.timings import Timings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.embedder import Embedder
    from edgeq.prompt_cache import PromptCache
    from edgeq.runtime.session import Session

PART = 16  # rows of logits at a time


class Model:
    """A model in memory. Made by `edgeq.load`.

    Any number of threads may use it: answers and other calls queue, one is computed at a time, and none changes the
    result of another. The keys and values of one conversation are kept, so that what goes on from it begins at once.
    """

    def __init__(self, file: File, session: "Session", load_s: float = 0.0, chat_template: str | None = None):
        self.file = file
        self.session = session
        self.load_s = load_s
        self._latest = Generation([], 0, 0, "", Sampler())
        self._latest.timings.load_s = load_s
        self._template_source = chat_template
        self._shared = SharedSession(session)
        self._further: list[Session] = []  # for embeddings
        self._closed = False

    @property
    def timings(self) -> Timings:
        """What the latest answer took."""
        return self._latest.timings

    @property
    def finish_reason(self) -> str | None:
        """Why the latest answer ended, see `Answer.finish_reason`."""
        return self._latest.finish_reason

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises TokenizerError where the file holds none, or one for another model."""
        assets = {name: self.file.asset(name) for name in self.file.assets}
        return load_tokenizer(assets, self.file.path, self.vocab_size)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """How conversations are written for this model. Raises TemplateError where there is no template."""
        if self._template_source is not None:
            return self.tokenizer.template_from(self._template_source)
        template = self.tokenizer.chat_template
        if template is None:
            raise TemplateError(
                f"{self.file.path}: the model has no chat template: give one with --template FILE "
                "(chat_template= in Python), or complete plain text with `edgeq run`"
            )
        return template

    @cached_property
    def sampling_defaults(self) -> Sampling:
        """What the model's makers recommend: the sampling options that its files name."""
        return cast(Sampling, sampling_defaults({name: self.file.asset(name) for name in self.file.assets}))

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Ids of the tokens that end a text; without a tokenizer those that the model's configuration names."""
        if self.file.assets.keys() & {*FILES}:
            return self.tokenizer.eos_ids
        config = json.dumps(self.file.metadata.get("config", {})).encode()
        assets = {name: self.file.asset(name) for name in self.file.assets if name.endswith(".json")}
        return frozenset(read_settings({**assets, "config.json": config}).eos_ids)

    @property
    def context(self) -> int:
        """Positions that prompt and answer can fill together."""
        return int(self.session.context)

    @cached_property
    def vocab_size(self) -> int:
        """Rows of the token embedding: ids are below this."""
        return self.file.tensors["token_embd.weight"].shape[0]

    @cached_property
    def parameters(self) -> int:
        """Number of weights in the file."""
        return sum(prod(tensor.shape) for tensor in self.file.tensors.values())

    @cached_property
    def has_chat_template(self) -> bool:
        """Whether `chat` knows how to write a conversation: the model has a template, or was given one."""
        return self._template_source is not None or self.tokenizer.chat_template is not None

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        speculate: bool = True,
        **sampling: Unpack[Sampling],
    ) -> Answer:
        """Complete a text. The answer is computed as it is iterated over: `for piece in model.generate("Once"):`.

        `prompt` is text, to which the tokenizer adds what the model expects (bos), or token ids taken as they are.
        Ends at an end-of-text token, before a stop string, after `max_tokens`, or when the context is full.
        `logprobs` notes each token's probability and the so many likeliest ones (`Answer.logprobs`): the model's own
        distribution, before any sampling option. `speculate` computes tokens that are easy to guess several at a time,
        where that is faster; it changes no token.

        The other options are those of `Sampling`: `temperature=0` always takes the likeliest token, the same `seed`
        gives the same text. They are by default the model's own (`sampling_defaults`), if it has some.

        Raises ContextError for a prompt that does not fit, UsageError for a value that cannot work or a closed model.
        """
        began = time.perf_counter()
        self._check_open()
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else token_ids(prompt)
        generation = self._generation(tokens, max_tokens, logprobs, speculate, sampling, began)
        return self._answer(generation, stop, len(prompt) > 0)

    def generate_tokens(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        logprobs: int | None = None,
        speculate: bool = True,
        **sampling: Unpack[Sampling],
    ) -> Generated[int]:
        """As `generate`, but token ids: all that a model without a tokenizer can read and write.

        A token that ends the text is not among those that are iterated over.
        """
        began = time.perf_counter()
        self._check_open()
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else token_ids(prompt)
        generation = self._generation(tokens, max_tokens, logprobs, speculate, sampling, began)
        return Generated(generation, self._ids(generation))

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        speculate: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer:
        """The answer to a conversation, e.g. [{"role": "user", "content": "Hello"}]; options are those of `generate`.

        What the conversation has in common with the previous call is not computed again. Raises TemplateError where
        the model has no chat template or it refuses the conversation; otherwise as `generate`.
        """
        began = time.perf_counter()
        tokens = self.chat_tokens(messages, tools=tools, template_variables=template_variables)
        return self._answer(self._generation(tokens, max_tokens, logprobs, speculate, sampling, began), stop, False)

    def chat_tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The prompt that `chat` gives to the model for a conversation. Raises TemplateError as `chat` does."""
        self._check_open()
        check_messages(messages)
        try:
            talk = self.chat_template.with_plain_text(messages, tools is not None)
            prompt = self.chat_template.render(talk, tools=tools, **(template_variables or {}))
        except TemplateError as error:
            name = self.file.path if self._template_source is None else "the given template"
            raise TemplateError(f"{name}: {error}") from error
        return self.tokenizer.encode(prompt, add_special=False)

    def logits(self, tokens: Sequence[int]) -> "npt.NDArray[np.float32]":
        """Logits f32[len(tokens), vocab]: row i is for the token after tokens[i]. Forgets any conversation.

        Raises ContextError for too many tokens, UsageError for none, for one that is no token, or a closed model.
        """
        self._check_open()
        checked = self._checked(token_ids(tokens))

        def evaluate(cache: "PromptCache") -> "npt.NDArray[np.float32]":
            self._check_open()
            cache.clear()
            return cache.append(checked, all_logits=True)

        return self._shared.alone(evaluate)

    def iter_logits(self, tokens: Sequence[int], first: int = 0) -> Iterator["npt.NDArray[np.float32]"]:
        """As `logits`, from row `first` on and a few rows at a time, so that a long text needs little memory: f32
        [at most 16, vocab] each. Other calls may come between two of them. Raises as `logits` does.
        """
        self._check_open()
        checked = self._checked(token_ids(tokens))

        def part(cache: "PromptCache", row: int) -> "npt.NDArray[np.float32]":
            self._check_open()
            cache.hold(checked[:row])
            return cache.append(checked[row : row + PART], all_logits=True)

        for row in range(first, len(checked), PART):
            yield self._shared.alone(partial(part, row=row))

    @overload
    def score(self, text: str | Sequence[int]) -> "npt.NDArray[np.float32]": ...

    @overload
    def score(
        self, text: str | Sequence[int], continuations: Sequence[str] | Sequence[Sequence[int]]
    ) -> list[Continuation]: ...

    def score(
        self, text: str | Sequence[int], continuations: Sequence[str] | Sequence[Sequence[int]] | None = None
    ) -> "npt.NDArray[np.float32] | list[Continuation]":
        """How likely the model finds a text: f32 [tokens - 1], the natural logarithm of the probability of each token
        after the first, given all before it.

        With `continuations`, how likely it finds each of them after the text, which is computed once; so is what the
        text has in common with the call before. Texts are tokenized together with what is before them.

        `text` is encoded as by `generate`, or token ids taken as they are; so are continuations, all of one kind with
        it. Forgets any conversation. Raises as `logits` does, UsageError also for a continuation without tokens.
        """
        self._check_open()
        if continuations is not None:
            return self._score_continuations(text, continuations)
        ids = self._checked(self.tokenizer.encode(text) if isinstance(text, str) else token_ids(text))

        def evaluate(cache: "PromptCache") -> "npt.NDArray[np.float32]":
            import numpy as np

            self._check_open()
            scores = np.empty(len(ids) - 1, np.float32)
            cache.clear()
            for first in range(0, len(ids) - 1, SCORED):
                following = ids[first + 1 : first + 1 + SCORED]
                values = log_softmax(cache.append(ids[first : first + len(following)], all_logits=True))
                scores[first : first + len(following)] = values[np.arange(len(following)), following]
            return scores

        return self._shared.alone(evaluate)

    def _score_continuations(
        self, text: str | Sequence[int], continuations: Sequence[str] | Sequence[Sequence[int]]
    ) -> list[Continuation]:
        if isinstance(continuations, str) or not isinstance(continuations, Sequence):
            raise UsageError(f"continuations must be a list of texts, or of lists of token ids, not {continuations!r}")
        if any(isinstance(one, str) is not isinstance(text, str) for one in continuations):
            raise UsageError("a text is scored with continuations that are texts, token ids with token ids")
        if isinstance(text, str):
            prompt, following = split(self.tokenizer, text, cast(Sequence[str], continuations))
        else:
            prompt, following = token_ids(text), [token_ids(cast(Sequence[int], one)) for one in continuations]
        self._checked(prompt)
        for one, ids in zip(continuations, following, strict=True):
            if not ids:
                raise UsageError(f"the continuation {one!r} has no tokens: give some text")
            self._checked([*prompt, *ids[:-1]])
            self._checked(ids[-1:])

        def evaluate(cache: "PromptCache") -> list[Continuation]:
            self._check_open()
            return score(cache, prompt, following)

        return self._shared.alone(evaluate)

    def embed(
        self, texts: Sequence[str], *, pooling: str | None = None, normalize: bool | None = None
    ) -> "npt.NDArray[np.float32]":
        """Vectors f32 [texts, hidden size]: the last states of each text's tokens, pooled.

        `pooling` ("mean", "cls", "last", "max") and `normalize` (to length 1) are by default what the checkpoint's
        sentence-transformers files say; without these the mean of an encoder's states, the last of a causal model's,
        not normalized. A text that is too long loses its end: see `embedder.timings`. Raises UsageError for a text
        without tokens, UnsupportedError for a checkpoint that asks for more than pooling.
        """
        self._check_open()
        embedder = self.embedder
        return self._shared.alone(lambda _: embedder(texts, pooling, normalize))

    @cached_property
    def embedder(self) -> "Embedder":
        """What `embed` uses. A model that was loaded to write text gets a second session for it."""
        from edgeq.embedder import Embedder
        from edgeq.runtime.session import Session

        session = self.session
        if not session.states:
            threads, kv = session.threads, session.kv
            session = Session(self.file, context=session.context, threads=threads, kv=kv, states=True)
            self._further.append(session)
        return Embedder(self.file, session, self.tokenizer)

    def close(self) -> None:
        """Stop the threads and let go of the file. The model cannot be used after this."""
        self._closed = True
        for session in (self.session, *self._further):
            session.close()
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = os.path.basename(self.file.path)
        kind = self.file.metadata.get("architecture", "unknown architecture")
        return f"<edgeq.Model {name}: {kind}, {self.parameters:,} parameters, context {self.context}>"

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.file.path}: the model is closed: load it again")

    def _checked(self, tokens: list[int]) -> list[int]:
        """The tokens, if the model can take them."""
        if self.session.states:
            raise UsageError(f"{self.file.path}: is loaded to embed texts, and writes none: use `edgeq embed` (embed)")
        if not tokens:
            raise UsageError("the prompt is empty, and the model has no token that begins a text: give some text")
        if len(tokens) > self.context:
            raise ContextError(
                f"the prompt has {len(tokens)} tokens, the context {self.context}: "
                "shorten it, or load with a larger --context"
            )
        outside = next((token for token in tokens if not 0 <= token < self.vocab_size), None)
        if outside is not None:
            raise UsageError(f"token {outside} is not in the model's vocabulary of {self.vocab_size}")
        return tokens

    def _generation(
        self,
        tokens: list[int],
        max_tokens: int | None,
        logprobs: int | None,
        speculate: bool,
        sampling: Sampling,
        began: float,
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
            speculation=Speculation(self._shared.pace) if speculate else None,
            prepared_s=time.perf_counter() - began,
            timings=Timings(load_s=self.load_s),
        )
        self._latest = generation
        return generation

    def _text_of(self, tokens: list[int]) -> Text:
        """What steps of the sampler may know of a text that begins with these."""
        known = self.file.assets.keys() & {*FILES}
        return Text(len(tokens), self.vocab_size, (lambda token: self.tokenizer.piece_bytes(token)) if known else None)

    def _answer(self, generation: Generation, stop: str | Sequence[str], continues: bool) -> Answer:
        """`continues`: the text goes on from the prompt's own, so a leading space belongs to it."""
        return Answer(generation, self._text(generation, StopStrings(stop_strings(stop)), continues))

    def _text(self, generation: Generation, stops: StopStrings, continues: bool) -> Iterator[str]:
        """The text of a generation, ended by eos, a stop string or its limit."""
        stream, ids, said = self.tokenizer.stream(continues=continues), self._ids(generation), generation.text
        for token in ids:
            if text := stops.push(stream.push(token)):
                said.append(text)
                yield text
            if stops.reached:
                generation.finish_reason = "stop"
                break
        cut = generation.finish_reason in ("max_tokens", "context")
        rest = stops.push(stream.flush(cut)) + stops.flush()
        if stops.reached:
            generation.finish_reason = "stop"
        if rest:
            said.append(rest)
            yield rest

    def _ids(self, generation: Generation) -> Iterator[int]:
        """The tokens of a generation, ended by eos or its limit."""
        ends = self.end_ids
        for token in self._shared.draw(generation, self._check_open):
            if token in ends:
                generation.finish_reason = "eos"
                return
            yield token
        generation.finish_reason = generation.limit
