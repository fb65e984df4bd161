"""A loaded model: complete a text, answer in a chat, look at the logits, or turn texts into vectors."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast, overload

from edgeq.adapters.given import Lora
from edgeq.engine.arguments import token_ids
from edgeq.engine.chatting import Chatting
from edgeq.engine.scoring import Continuation, score, split
from edgeq.engine.shared_session import SCORED, SharedSession, log_softmax
from edgeq.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.drift.watch import Watch
    from edgeq.engine.classifying import Classifying
    from edgeq.engine.embedder import Embedder, EmbeddingTimings
    from edgeq.engine.prompt_cache import PromptCache
    from edgeq.engine.yes_no import YesNo

PART = 16  # rows of logits at a time


class Model(Chatting):
    """A model in memory. Made by `edgeq.load`.

    Any number of threads may use it: answers are computed together, other calls one after the other, and none changes
    the result of another. The keys and values of texts are kept while there is room, so that what goes on from one, or
    begins like one, begins at once.

    Where `lora` can be given, it is a list of adapters for this call alone, in place of those that were loaded: each
    the path of a PEFT folder or a GGUF file, `PATH:SCALE`, or (path, scale); an empty list is the model without any.
    The latest five lists in use are kept ready, each with texts of its own.
    """

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
        texts: Sequence[str | list[int]],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> "npt.NDArray[np.float32]":
        """Vectors f32 [texts, hidden size]: the last states of each text's tokens, pooled. A list of token ids instead
        of a text is taken as it is.

        `pooling` ("mean", "cls", "last", "max") and `normalize` (to length 1) are by default what the checkpoint's
        sentence-transformers files say; without these the mean of an encoder's states, the last of a causal model's,
        not normalized. A text that is too long loses its end: see `embedder.timings`. Some models want a prompt before
        a text, by what that is for: theirs called `prompt_name` (`embedder.settings.prompts`), or `prompt` itself;
        vectors of models with modules behind the pooling have as many values as these give. Raises UsageError for a
        text without tokens or with ids that are none, UnsupportedError for a checkpoint that asks for what is not
        computed.
        """
        self._check_open()
        embedder = self.embedder
        return self._shared.alone(lambda _: embedder(texts, pooling, normalize, prompt_name=prompt_name, prompt=prompt))

    @cached_property
    def embedder(self) -> "Embedder":
        """What `embed` uses. A model that was loaded to write text gets a second session for it."""
        from edgeq.engine.embedder import Embedder
        from edgeq.runtime.session import Session

        session = self.session
        if not session.states:
            session = Session(
                session.file,
                context=session.context,
                threads=session.threads,
                kv=session.kv,
                states=True,
                announce=session.program.announce,
            )
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
        from edgeq.engine.classifying import Classifying

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
        from edgeq.engine.yes_no import YesNo

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
