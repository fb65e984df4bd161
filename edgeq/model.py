"""A loaded model: complete a text, answer in a chat, look at the logits, or turn texts into vectors."""

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, cast, overload

from edgeq import saved_texts
from edgeq.adapted_sessions import AdaptedSessions
from edgeq.adapters.adapter_set import AdapterSet
from edgeq.adapters.given import Lora, wanted
from edgeq.answer import Answer, Generated, Generation, while_wanted
from edgeq.answers import Answers
from edgeq.arguments import check_count, check_messages, check_numbers, stop_strings, token_ids
from edgeq.container.reader import File
from edgeq.decode.sampler import Sampler
from edgeq.decode.sampler_steps import Sampling
from edgeq.decode.sampling_defaults import sampling_defaults
from edgeq.decode.step import Text
from edgeq.decode.stops import StopStrings
from edgeq.drafting import Draft
from edgeq.errors import ContextError, TemplateError, UsageError
from edgeq.scoring import Continuation, score, split
from edgeq.shared_session import SCORED, SharedSession, log_softmax
from edgeq.text.assets import read_settings
from edgeq.text.chat import ChatTemplate
from edgeq.text.tokenizer import FILES, Tokenizer, load_tokenizer
from edgeq.timings import Timings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.classifying import Classifying
    from edgeq.drift.watch import Watch
    from edgeq.embedder import Embedder, EmbeddingTimings
    from edgeq.prompt_cache import PromptCache
    from edgeq.runtime.session import Session
    from edgeq.yes_no import YesNo

PART = 16  # rows of logits at a time


class Model:
    """A model in memory. Made by `edgeq.load`.

    Any number of threads may use it: answers are computed together, other calls one after the other, and none changes
    the result of another. The keys and values of texts are kept while there is room, so that what goes on from one, or
    begins like one, begins at once.

    Where `lora` can be given, it is a list of adapters for this call alone, in place of those that were loaded: each
    the path of a PEFT folder or a GGUF file, `PATH:SCALE`, or (path, scale); an empty list is the model without any.
    The latest five lists in use are kept ready, each with texts of its own.
    """

    def __init__(
        self,
        file: File,
        session: "Session",
        load_s: float = 0.0,
        chat_template: str | None = None,
        adapters: AdapterSet | None = None,
    ):
        self.file = file
        self.session = session
        self.load_s = load_s
        self._adapters = adapters or AdapterSet(file)  # those of the session
        self._latest = Generation([], 0, 0, "", Sampler())
        self._latest.timings.load_s = load_s
        self._template_source = chat_template
        self._sessions = AdaptedSessions(file, session, self._adapters)
        self._shared = self._sessions.first
        self._further: list[Session] = []  # for embeddings
        self._watches: list[Watch] = []
        self._closed = False

    @property
    def timings(self) -> Timings:
        """What the latest answer took."""
        return self._latest.timings

    @property
    def finish_reason(self) -> str | None:
        """Why the latest answer ended, see `Answer.finish_reason`."""
        return self._latest.finish_reason

    @property
    def computed_tokens(self) -> int:
        """Tokens of the latest answer, and of the prompt before it, whose keys and values are known."""
        return len(self._latest.sequence) - 1 if self._latest.timings.generated_tokens else 0

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
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else token_ids(prompt)
        shared = self._session_for(lora)
        generation = self._generation(tokens, max_tokens, logprobs, sampling, began, shared, speculate=speculate)
        return self._answer(generation, shared, stop, len(prompt) > 0)

    def batch(
        self,
        prompts: Sequence[str | Sequence[int] | Sequence[Mapping[str, Any]]],
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
        began = time.perf_counter()
        self._check_open()
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else token_ids(prompt)
        shared = self._session_for(lora)
        generation = self._generation(tokens, max_tokens, logprobs, sampling, began, shared, speculate=speculate)
        return Generated(generation, self._ids(generation, shared))

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer:
        """The answer to a conversation, e.g. [{"role": "user", "content": "Hello"}]; options are those of `generate`.

        What the conversation has in common with the previous call is not computed again. Raises TemplateError where
        the model has no chat template or it refuses the conversation; otherwise as `generate`.
        """
        began = time.perf_counter()
        tokens = self.chat_tokens(messages, tools=tools, template_variables=template_variables)
        shared = self._session_for(lora)
        return self._answer(
            self._generation(tokens, max_tokens, logprobs, sampling, began, shared, speculate=speculate),
            shared,
            stop,
            False,
        )

    def achat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncIterator[str]:
        """As `chat`, for `async for` alone: the answer is cancelled with the task that iterates over it."""
        return while_wanted(
            self.chat(
                messages,
                max_tokens,
                stop=stop,
                logprobs=logprobs,
                tools=tools,
                template_variables=template_variables,
                speculate=speculate,
                lora=lora,
                **sampling,
            )
        )

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

    def save_prefix(
        self, path: str | os.PathLike[str], prompt: str | Sequence[int], about: Mapping[str, Any] | None = None
    ) -> int:
        """Evaluate a prompt and write it to a file (`.eqp`) with all that the model keeps of it: texts that begin with
        it begin at once, in any process that loads the file, on any CPU. How many tokens it has.

        `about` is kept with it, and is handed out again: anything that JSON holds. Raises as `generate`, OutputError
        for a file that cannot be written.
        """
        self._check_open()
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else token_ids(prompt)
        for _ in self.generate_tokens(tokens, 1, temperature=0.0):
            pass
        return saved_texts.save(self._shared, self.session, path, tokens, about or {})

    def save_text(self, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> int:
        """As `save_prefix`, the prompt and the tokens of the latest answer, as far as they are evaluated."""
        self._check_open()
        return saved_texts.save(self._shared, self.session, path, self._latest.sequence, about or {})

    def load_prefix(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Know a text that was saved; what was said `about` it. Raises FormatError for a file that is damaged or none,
        UsageError for one of another model, KV cache or context."""
        self._check_open()
        return saved_texts.load(self._shared, self.session, path)[1]

    def system_tokens(self, system: str) -> list[int]:
        """What all conversations with a system message begin with. Raises TemplateError as `chat` does."""
        first = {"role": "system", "content": system}
        one, other = (self.chat_tokens([first, {"role": "user", "content": text}]) for text in ("a", "b"))
        return one[: next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))]

    def logits(self, tokens: Sequence[int], *, lora: Sequence[Lora] | None = None) -> "npt.NDArray[np.float32]":
        """Logits f32[len(tokens), vocab]: row i is for the token after tokens[i]. Forgets any conversation.

        Raises ContextError for too many tokens, UsageError for none, for one that is no token, or a closed model.
        """
        self._check_open()
        checked, shared = self._checked(token_ids(tokens)), self._session_for(lora)

        def evaluate(cache: "PromptCache") -> "npt.NDArray[np.float32]":
            self._check_open()
            cache.clear()
            return cache.append(checked, all_logits=True)

        return shared.alone(evaluate)

    def iter_logits(
        self, tokens: Sequence[int], first: int = 0, *, lora: Sequence[Lora] | None = None
    ) -> Iterator["npt.NDArray[np.float32]"]:
        """As `logits`, from row `first` on and a few rows at a time, so that a long text needs little memory: f32
        [at most 16, vocab] each. Other calls may come between two of them. Raises as `logits` does.
        """
        self._check_open()
        checked, shared = self._checked(token_ids(tokens)), self._session_for(lora)

        def part(cache: "PromptCache", row: int) -> "npt.NDArray[np.float32]":
            self._check_open()
            cache.hold(checked[:row])
            return cache.append(checked[row : row + PART], all_logits=True)

        for row in range(first, len(checked), PART):
            yield shared.alone(partial(part, row=row))

    @overload
    def score(self, text: str | Sequence[int], *, lora: Sequence[Lora] | None = None) -> "npt.NDArray[np.float32]": ...

    @overload
    def score(
        self,
        text: str | Sequence[int],
        continuations: Sequence[str] | Sequence[Sequence[int]],
        *,
        lora: Sequence[Lora] | None = None,
    ) -> list[Continuation]: ...

    def score(
        self,
        text: str | Sequence[int],
        continuations: Sequence[str] | Sequence[Sequence[int]] | None = None,
        *,
        lora: Sequence[Lora] | None = None,
    ) -> "npt.NDArray[np.float32] | list[Continuation]":
        """How likely the model finds a text: f32 [tokens - 1], the natural logarithm of the probability of each token
        after the first, given all before it.

        With `continuations`, how likely it finds each of them after the text, which is computed once; so is what the
        text has in common with the call before. Texts are tokenized together with what is before them.

        `text` is encoded as by `generate`, or token ids taken as they are; so are continuations, all of one kind with
        it. Forgets any conversation. Raises as `logits` does, UsageError also for a continuation without tokens.
        """
        self._check_open()
        shared = self._session_for(lora)
        if continuations is not None:
            return self._score_continuations(text, continuations, shared)
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

        return shared.alone(evaluate)

    def _score_continuations(
        self, text: str | Sequence[int], continuations: Sequence[str] | Sequence[Sequence[int]], shared: SharedSession
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

        return shared.alone(evaluate)

    def embed(
        self,
        texts: Sequence[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> "npt.NDArray[np.float32]":
        """Vectors f32 [texts, hidden size]: the last states of each text's tokens, pooled.

        `pooling` ("mean", "cls", "last", "max") and `normalize` (to length 1) are by default what the checkpoint's
        sentence-transformers files say; without these the mean of an encoder's states, the last of a causal model's,
        not normalized. A text that is too long loses its end: see `embedder.timings`. Some models want a prompt before
        a text, by what that is for: theirs called `prompt_name` (`embedder.settings.prompts`), or `prompt` itself;
        vectors of models with modules behind the pooling have as many values as these give. Raises UsageError for a
        text without tokens, UnsupportedError for a checkpoint that asks for what is not computed.
        """
        self._check_open()
        embedder = self.embedder
        return self._shared.alone(lambda _: embedder(texts, pooling, normalize, prompt_name=prompt_name, prompt=prompt))

    @cached_property
    def embedder(self) -> "Embedder":
        """What `embed` uses. A model that was loaded to write text gets a second session for it."""
        from edgeq.embedder import Embedder
        from edgeq.runtime.session import Session

        session = self.session
        if not session.states:
            threads, kv = session.threads, session.kv
            session = Session(session.file, context=session.context, threads=threads, kv=kv, states=True)
            self._further.append(session)
        return Embedder(self.file, session, self.tokenizer)

    def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        instruction: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> "npt.NDArray[np.float32]":
        """How well each text answers a query, f32 [texts]: what sentence-transformers' CrossEncoder gives for the
        pairs, mostly from 0 to 1.

        The model is a reranker: a classifier of one label, or one that writes "yes" or "no", as Qwen3-Reranker, which
        can be given an `instruction`. What is too long is cut, the longer text of a pair first: see `ranking_timings`.
        `progress` hears how many texts are done. Raises UsageError for a model that is none.
        """
        self._check_open()
        if not isinstance(query, str) or isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise UsageError('rerank takes a query and a list of texts, e.g. "a question", ["an answer", "another"]')
        if self.asks_yes_or_no:
            asking = self._yes_no
            return self._shared.alone(lambda cache: asking(cache, query, texts, instruction, progress))
        if instruction is not None:
            raise UsageError(f"{self.file.path}: takes no instruction: leave it out")
        scorer, pairs = self.classifying, [(query, text) for text in texts]
        return self._shared.alone(lambda _: scorer.relevance(scorer(pairs, progress)))

    def classify(
        self, texts: Sequence[str | tuple[str, str]], *, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, float]]:
        """The probability of each of a classifier's labels, by name, for each text or pair of texts; of a regression
        the value. Raises UsageError for a model that is no classifier."""
        self._check_open()
        if isinstance(texts, str):
            raise UsageError('classify takes a list of texts, or of pairs of texts, e.g. ["a text", ("two", "texts")]')
        scorer = self.classifying
        found = self._shared.alone(lambda _: scorer.probabilities(scorer(texts, progress)))
        return [dict(zip(scorer.labels, map(float, row), strict=True)) for row in found]

    @cached_property
    def classifying(self) -> "Classifying":
        """What `classify` and `rerank` use of a classifier."""
        from edgeq.classifying import Classifying

        return Classifying(self.file, self.session, self.tokenizer)

    @cached_property
    def asks_yes_or_no(self) -> bool:
        """Whether the model ranks texts by what it writes: it does not say so itself, but its name does."""
        config, provenance = self.file.metadata.get("config", {}), self.file.metadata.get("provenance", {})
        names = (os.path.basename(self.file.path), provenance.get("source"), config.get("_name_or_path"))
        told = any("reranker" in str(name).lower() for name in names)
        return told and config.get("model_type") == "qwen3" and self.session.model.writes_text

    @property
    def ranking_timings(self) -> "EmbeddingTimings":
        """What the latest call of `rerank` or `classify` took."""
        return self._yes_no.timings if self.asks_yes_or_no else self.classifying.timings

    @cached_property
    def _yes_no(self) -> "YesNo":
        from edgeq.yes_no import YesNo

        return YesNo(self.tokenizer, self.context)

    def watch(self, budget: float = 0.02, announce: Callable[[str], None] | None = None) -> "Watch":
        """Begin to compare the prompts that the model is given with the text that its file was calibrated with:

            with model.watch() as watch:
                ...                      # serve
                for alert in watch.alerts:
                    print(alert)

        At most a share `budget` of the time is spent on it. `announce` hears a line if kernels must be compiled first.
        Raises UsageError for a file that was converted without a calibration, and for a budget not above 0 and at most
        1, MemoryLimitError where there is no room.
        """
        from edgeq.drift.watch import Watch

        self._check_open()
        if not 0 < budget <= 1:
            raise UsageError(f"a budget of {budget} cannot work: give a share of the time, above 0 and at most 1")

        def alone(work: Callable[[], None]) -> None:
            def look(_: "PromptCache") -> None:
                self._check_open()
                work()

            self._shared.alone(look)

        watch = Watch(self.file, alone, self.session.threads, budget, announce, self._watches.remove)
        self._watches.append(watch)
        return watch

    @property
    def has_draft(self) -> bool:
        """Whether a small model guesses tokens for this one."""
        return self._shared.draft is not None

    def draft_with(self, draft: Draft) -> None:
        """Have a small model guess tokens for this one: what `edgeq.load(draft=...)` does, before anything is asked."""
        self._sessions.draft_with(draft)

    def close(self) -> None:
        """Stop the threads and let go of the file. The model cannot be used after this."""
        self._closed = True
        for watch in [*self._watches]:
            watch.close()
        self._sessions.close()
        for session in self._further:
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

    def _session_for(self, lora: Sequence[Lora] | None) -> SharedSession:
        """That of the adapters that a call asks for; of those that were loaded for None."""
        return self._shared if lora is None else self._sessions.of(AdapterSet(self.file, wanted(lora)))

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
        sampling: Sampling,
        began: float,
        shared: SharedSession,
        group: object = None,
        speculate: bool = True,
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
            prepared_s=time.perf_counter() - began,
            timings=Timings(load_s=self.load_s),
        )
        shared.prepare(generation, self.end_ids, group, speculate)
        self._latest = generation
        for watch in self._watches:
            watch.saw(tokens)
        return generation

    def _text_of(self, tokens: list[int]) -> Text:
        """What steps of the sampler may know of a text that begins with these."""
        known = self.file.assets.keys() & {*FILES}
        return Text(len(tokens), self.vocab_size, (lambda token: self.tokenizer.piece_bytes(token)) if known else None)

    def _answer(
        self, generation: Generation, shared: SharedSession, stop: str | Sequence[str], continues: bool
    ) -> Answer:
        """`continues`: the text goes on from the prompt's own, so a leading space belongs to it."""
        return Answer(generation, self._text(generation, shared, StopStrings(stop_strings(stop)), continues))

    def _answers(
        self,
        prompts: Sequence[str | Sequence[int] | Sequence[Mapping[str, Any]]],
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
            talk = not isinstance(prompt, str) and any(isinstance(part, Mapping) for part in prompt)
            if talk:
                tokens = self.chat_tokens(cast(Sequence[Mapping[str, Any]], prompt))
            elif isinstance(prompt, str):
                tokens = self.tokenizer.encode(prompt)
            else:
                tokens = token_ids(cast(Sequence[int], prompt))
            generation = self._generation(tokens, max_tokens, logprobs, sampling, began, shared, group, speculate)
            answers.append(self._answer(generation, shared, stop, not talk and len(prompt) > 0))
        shared.add(answers)
        return Answers(answers, shared.scheduler.wait)

    def _text(
        self, generation: Generation, shared: SharedSession, stops: StopStrings, continues: bool
    ) -> Iterator[str]:
        """The text of a generation, ended by eos, a stop string or its limit."""
        stream, said = self.tokenizer.stream(continues=continues), generation.text
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
