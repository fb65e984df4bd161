"""Texts to vectors: the last states of their tokens, pooled as the model's sentence-transformers files say."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from edgeq.container.reader import File
from edgeq.engine.after_pooling import TORCH, activated, product, weights_of
from edgeq.errors import TokenizerError, UnsupportedError, UsageError
from edgeq.text.sentence import POOLINGS, SentenceSettings, read_sentence_settings
from edgeq.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.runtime.session import Session

T = TypeVar("T")


@dataclass
class EmbeddingTimings:
    """What the latest call took: texts, their tokens, how many texts were too long and cut, seconds."""

    texts: int = 0
    tokens: int = 0
    cut: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens per second; 0 where nothing was measured."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def one_by_one(
    texts: Sequence[T], compute: Callable[[int, T], tuple[int, bool]], progress: Callable[[int], None] | None = None
) -> EmbeddingTimings:
    """What it takes to compute texts: `compute` is given each with its number, and tells how many tokens it had, and
    whether its end was cut off; `progress` hears how many are done."""
    began, timings = time.perf_counter(), EmbeddingTimings(texts=len(texts))
    for i, text in enumerate(texts):
        tokens, cut = compute(i, text)
        timings.tokens += tokens
        timings.cut += cut
        if progress:
            progress(i + 1)
    timings.seconds = time.perf_counter() - began
    return timings


class Embedder:
    """Embeds texts by a session that gives states; the session is the caller's to close."""

    def __init__(self, file: File, session: "Session", tokenizer: Tokenizer) -> None:
        """Raises UnsupportedError, TokenizerError for settings in the file that this version cannot follow."""
        self._session, self._tokenizer = session, tokenizer
        causal = session.model.heads.causal
        try:
            self.settings: SentenceSettings = read_sentence_settings(
                {name: file.asset(name) for name in file.assets}, causal
            )
        except (UnsupportedError, TokenizerError) as error:
            raise type(error)(f"{file.path}: {error}") from error
        self._dense = session.model.dense
        if self.settings.dense > len(self._dense):
            what = "modules.json asks for a module 'Dense', whose weights the file has not"
            raise UnsupportedError(f"{file.path}: {what}: convert the checkpoint anew, with its folders")
        self._weights = weights_of(file, "dense_")
        self._vocabulary = int(file.tensors["token_embd.weight"].shape[0])
        self.timings = EmbeddingTimings()

    @property
    def max_length(self) -> int:
        """Most tokens of a text, special ones included; what is beyond is cut off."""
        room = min(self._session.context, self._session.model.max_position_embeddings)
        return min(self.settings.max_length or room, room)

    def __call__(
        self,
        texts: Sequence[str | list[int]],
        pooling: str | None = None,
        normalize: bool | None = None,
        progress: Callable[[int], None] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> "npt.NDArray[np.float32]":
        """f32 [texts, `width`]; `pooling` and `normalize` instead of the model's own. `progress` hears how many texts
        are done. `prompt` is put before each text, or that of the model's called `prompt_name`. Token ids instead of a
        text are taken as they are.

        Raises UsageError for another pooling than mean, cls, last and max, for a prompt that the model has not, for
        a text without tokens, and for token ids that are none.
        """
        import numpy as np

        pooling = self.settings.pooling if pooling is None else pooling
        if pooling not in POOLINGS:
            raise UsageError(f"pooling {str(pooling)[:40]!r} is not known: give one of {', '.join(POOLINGS)}")
        if isinstance(texts, str) or not all(isinstance(text, str | list) for text in texts):
            raise UsageError('texts must be a list of str, e.g. ["one text", "another"], or of lists of token ids')
        result = np.empty((len(texts), self.width), np.float32)
        before = self.prompt(prompt_name, prompt)
        skipped = 0 if self.settings.pools_prompt or not before else self._prompt_tokens(before)

        def embed(i: int, text: str | list[int]) -> tuple[int, bool]:
            tokens, cut = self.tokens(before + text if isinstance(text, str) else text)
            if not tokens:
                raise UsageError(f"text {i + 1} has no tokens: leave it out")
            self._session.rewind(0)
            states = self._session.eval(tokens, all_logits=pooling in ("mean", "max", "cls"))
            result[i] = self._after(pool(states[min(skipped, len(states) - 1) :], pooling))
            return len(tokens), cut

        self.timings = one_by_one(texts, embed, progress)
        if self.settings.normalize if normalize is None else normalize:
            result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
        return result

    @property
    def width(self) -> int:
        """Values of a vector."""
        return self._dense[-1].matrix.rows if self._dense else int(self._session.plan.logits.shape[1])

    def prompt(self, name: str | None = None, given: str | None = None) -> str:
        """What is put before texts. UsageError for a name that the model has no prompt of."""
        if given is not None:
            return given
        name, known = name or self.settings.default, self.settings.prompts
        if name is not None and name not in known:
            has = f"give one of {', '.join(known)}" if known else "it has none, give the prompt itself"
            raise UsageError(f"the model has no prompt called {name[:40]!r}: {has}")
        return known[name] if name is not None else ""

    def _prompt_tokens(self, prompt: str) -> int:
        """How many tokens a text begins with that are its prompt's, and what stands before these."""
        whole, bare = self._tokenizer.encode(prompt), self._tokenizer.encode(prompt, add_special=False)
        before = next((i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare), 0)
        return before + len(bare)

    def _after(self, pooled: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
        """What the modules behind the pooling make of a vector."""
        if not self._dense:
            return pooled
        x = pooled.astype("f8")
        for module in self._dense:
            x = activated(
                product(self._weights, module.matrix.name, x), TORCH.get(module.activation, module.activation)
            )
        result: npt.NDArray[np.float32] = x.astype("f4")
        return result

    def tokens(self, text: str | list[int]) -> tuple[list[int], bool]:
        """Token ids of a text, and whether its end was cut off; special tokens around it stay. Ids that are given are
        the text's. Raises UsageError for what is no token."""
        if not isinstance(text, str):
            outside = next(
                (token for token in text if type(token) is not int or not 0 <= token < self._vocabulary), None
            )
            if outside is not None:
                raise UsageError(f"token {outside!r:.40} is not in the model's vocabulary of {self._vocabulary}")
            return text[: self.max_length], len(text) > self.max_length
        return tokens_within(self._tokenizer, text, self.max_length)


def tokens_within(tokenizer: Tokenizer, text: str, most: int) -> tuple[list[int], bool]:
    """At most so many token ids of a text, and whether its end was cut off; special tokens around it stay."""
    whole = tokenizer.encode(text)
    if len(whole) <= most:
        return whole, False
    bare = tokenizer.encode(text, add_special=False)
    around = len(whole) - len(bare)
    before = next((i for i in range(around + 1) if whole[i : i + len(bare)] == bare), 0)
    kept = max(0, most - around)
    return (whole[:before] + bare[:kept] + whole[before + len(bare) :])[:most], True


def pool(states: "npt.NDArray[np.float32]", pooling: str) -> "npt.NDArray[np.float32]":
    """One vector of f32 [tokens, width]."""
    if pooling == "mean":
        mean: npt.NDArray[np.float32] = states.mean(axis=0, dtype="f8").astype("f4")
        return mean
    if pooling == "max":
        largest: npt.NDArray[np.float32] = states.max(axis=0)
        return largest
    one: npt.NDArray[np.float32] = states[0] if pooling == "cls" else states[-1]
    return one
