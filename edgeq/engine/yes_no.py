"""Pairs of texts scored by a model that writes text, asked whether the one answers the other: the probability of "yes"
against "no" as its next token, as Qwen3-Reranker was trained (arXiv:2506.05176)."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeq.engine.embedder import EmbeddingTimings, one_by_one
from edgeq.engine.timings import Timings
from edgeq.errors import UsageError
from edgeq.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.engine.prompt_cache import PromptCache

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class YesNo:
    """Asks for each of several texts, within `most` tokens."""

    def __init__(self, tokenizer: Tokenizer, most: int) -> None:
        """Raises UsageError where the tokenizer lacks a token for either answer."""
        ids = [tokenizer.token_id(word) for word in ("yes", "no")]
        if None in ids:
            raise UsageError('the model has no tokens "yes" and "no", by which it could score texts')
        self._tokenizer, self._yes, self._no = tokenizer, *(i for i in ids if i is not None)
        self._before, self._after = (tokenizer.encode(text, add_special=False) for text in (BEFORE, AFTER))
        self.max_length = most
        self.timings = EmbeddingTimings()

    def __call__(
        self,
        cache: "PromptCache",
        query: str,
        texts: Sequence[str],
        instruction: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> "npt.NDArray[np.float32]":
        """f32 [texts], from 0 to 1. What prompts have in common is computed once."""
        import numpy as np

        result = np.empty(len(texts), np.float32)

        def asked(i: int, text: str) -> tuple[int, bool]:
            tokens, cut = self.tokens(query, text, instruction)
            logits = cache.prompt(tokens, Timings())
            result[i] = 1.0 / (1.0 + math.exp(min(float(logits[self._no]) - float(logits[self._yes]), 700.0)))
            return len(tokens), cut

        self.timings = one_by_one(texts, asked, progress)
        return result

    def tokens(self, query: str, text: str, instruction: str | None = None) -> tuple[list[int], bool]:
        """The prompt, and whether the end of the text was cut off. The names of control tokens in it are text."""
        asked = f"<Instruct>: {instruction or INSTRUCTION}\n<Query>: {query}\n<Document>: {text}"
        ids = self._tokenizer.encode(asked, add_special=False, parse_special=False)
        room = max(0, self.max_length - len(self._before) - len(self._after))
        return [*self._before, *ids[:room], *self._after], len(ids) > room
