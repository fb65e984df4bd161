"""A loaded model: complete a text, answer in a chat, look at the logits, or turn texts into vectors."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from edgeq.arguments import Sampling, check_messages, check_numbers, stop_strings, token_ids
from edgeq.container.reader import File, open_file
from edgeq.errors import ContextError, TemplateError, UsageError
from edgeq.prompt_cache import PromptCache
from edgeq.runtime.sampler import Sampler, SamplerParams
from edgeq.text.chat import ChatTemplate
from edgeq.text.stops import StopStrings
from edgeq.text.tokenizer import FILES, Tokenizer, load_tokenizer
from edgeq.timings import Timings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.embedding import Embedder
    from edgeq.runtime.session import Session


@dataclass
class _Request:
    """One generation, checked and ready to run."""

    tokens: list[int]
    max_tokens: int
    sampler: Sampler
    stops: StopStrings
    continues: bool  # the text goes on from the prompt's own, so a leading space belongs to it
    began: float = field(default_factory=time.perf_counter)


class Model:
    """A model in memory, with one conversation's keys and values. Made by `load`; not for two threads at a time."""

    def __init__(self, file: File, session: "Session", load_s: float = 0.0, chat_template: str | None = None):
        self.file = file
        self.session = session
        self.timings = Timings(load_s=load_s)
        self.finish_reason: str | None = None  # of the latest generation: "eos", "stop", "max_tokens" or "context"
        self._template_source = chat_template
        self._cache = PromptCache(session)
        self._further: list[Session] = []  # for embeddings
        self._generation = 0
        self._closed = False

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

    def generate(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> Iterator[str]:
        """Complete a text: pieces of text as they become known.

        `prompt` is text, to which the tokenizer adds what the model expects (bos), or token ids taken as they are.
        Ends at an end-of-text token, before a stop string, after `max_tokens`, or when the context is full. Raises
        ContextError for a prompt that does not fit, UsageError for a value that cannot work or a closed model.
        """
        began = time.perf_counter()
        self._check_open()
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else token_ids(prompt)
        return self._start(tokens, max_tokens, stop, sampling, len(prompt) > 0, began)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Iterator[str]:
        """The answer to a conversation, e.g. [{"role": "user", "content": "Hello"}], piece by piece.

        What the conversation has in common with the previous call is not computed again. Raises TemplateError where
        the model has no chat template or it refuses the conversation; otherwise as `generate`.
        """
        began = time.perf_counter()
        tokens = self.chat_tokens(messages, tools=tools, template_variables=template_variables)
        return self._start(tokens, max_tokens, stop, sampling, False, began)

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
            prompt = self.chat_template.render(messages, tools=tools, **(template_variables or {}))
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
        self._generation += 1
        self._cache.clear()
        return self._cache.append(checked, all_logits=True)

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
        return self.embedder(texts, pooling, normalize)

    @cached_property
    def embedder(self) -> "Embedder":
        """What `embed` uses. A model that was loaded to write text gets a second session for it."""
        from edgeq.embedding import Embedder
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

    def _start(
        self,
        tokens: list[int],
        max_tokens: int | None,
        stop: str | Sequence[str],
        sampling: Sampling,
        continues: bool,
        began: float,
    ) -> Iterator[str]:
        check_numbers(max_tokens, sampling)
        room = self.context + 1 - len(self._checked(tokens))  # the last token is drawn but takes no position
        request = _Request(
            tokens=tokens,
            max_tokens=room if max_tokens is None else min(max_tokens, room),
            sampler=Sampler(SamplerParams(**sampling)),
            stops=StopStrings(stop_strings(stop)),
            continues=continues,
            began=began,
        )
        self._generation += 1
        self.finish_reason = None
        self.timings = Timings(load_s=self.timings.load_s)
        limit = "context" if max_tokens is None or max_tokens > room else "max_tokens"
        return self._text(request, self._generation, limit)

    def _text(self, request: _Request, generation: int, limit: str) -> Iterator[str]:
        """The text of a generation, ended by eos, a stop string or `limit`."""
        stream, stops = self.tokenizer.stream(continues=request.continues), request.stops
        reason = limit
        for token in self._draw(request, generation):
            if token in self.tokenizer.eos_ids:
                reason = "eos"
                break
            if text := stops.push(stream.push(token)):
                yield text
            if stops.reached:
                break
        rest = stops.push(stream.flush()) + stops.flush()
        self.finish_reason = "stop" if stops.reached else reason
        if rest:
            yield rest

    def _draw(self, request: _Request, generation: int) -> Iterator[int]:
        """Up to max_tokens tokens, each computed only when it is asked for."""
        if request.max_tokens == 0:
            return
        tokens, timings = list(request.tokens), self.timings
        self._check_current(generation)
        logits = self._cache.prompt(tokens, timings)
        for count in range(request.max_tokens):
            self._check_current(generation)
            clock = time.perf_counter()
            if count > 0:
                logits = self._cache.append(tokens[-1:])[-1]
            token = request.sampler.sample(logits, tokens)
            tokens.append(token)
            timings.generated_tokens += 1
            if count == 0:
                timings.first_token_s = time.perf_counter() - request.began
            else:
                timings.generation_s += time.perf_counter() - clock
            yield token

    def _check_current(self, generation: int) -> None:
        """UsageError for an answer whose keys and values the session no longer has."""
        self._check_open()
        if generation != self._generation:
            raise UsageError("this answer cannot go on: the model has begun another one since")


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    context: int | None = None,
    kv: str | None = None,
    chat_template: str | None = None,
    embeddings: bool = False,
    force: bool = False,
    announce: Callable[[str], None] | None = None,
) -> Model:
    """Load a `.eqf` file; or a GGUF file, a checkpoint's folder, a Hub repository `owner/name`, the last two also with
    a recipe (`owner/name:Q8_0`): these are imported or converted into the cache first, once.

    `threads`: None takes EDGEQ_THREADS, or else the fast cores. `context`: positions for prompt and answer
    together; None takes what the model was trained for, at most 4096. `kv`: element of the KV cache, "f16",
    "q8_0" (half the memory) or "f32". `chat_template`: Jinja source instead of the model's own. `embeddings`:
    only to `embed` texts, which is all that an encoder can; it saves memory. `force` loads also what does not seem
    to fit in memory. `announce` hears one line if kernels must be compiled, or a file made, first.
    Raises FormatError for a file that is none, CheckpointError for a checkpoint that cannot be converted,
    UnsupportedError for a model that this version cannot run, MemoryLimitError for one that does not fit in memory,
    TokenizerError for a tokenizer that cannot be read; a file without one still runs on token ids.
    """
    began = time.perf_counter()
    from edgeq.model_cache import runnable

    file = open_file(runnable(path, announce))
    try:
        from edgeq.runtime.fit import available_memory
        from edgeq.runtime.session import Session

        if file.nbytes < available_memory():
            file.read_ahead()
        session = Session(
            file, context=context, threads=threads, kv=kv, states=embeddings, force=force, announce=announce
        )
    except BaseException:
        file.close()
        raise
    model = Model(file, session, chat_template=chat_template)
    try:
        if file.assets.keys() & {*FILES}:
            _ = model.tokenizer  # now rather than with the first text: it belongs to loading
    except BaseException:
        model.close()
        raise
    model.timings.load_s = time.perf_counter() - began
    return model
