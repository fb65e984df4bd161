"""How likely a model finds continuations of a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeq.engine.prompt_cache import PromptCache
from edgeq.engine.shared_session import SCORED, log_softmax
from edgeq.engine.timings import Timings
from edgeq.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Continuation:
    """What a model thinks of one way to go on from a prompt.

    tokens    its ids
    logprobs  natural logarithm of each one's probability, given the prompt and those before it
    greedy    whether each is the one that the model finds likeliest
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    greedy: bool

    @property
    def logprob(self) -> float:
        """Natural logarithm of the probability of the whole."""
        return sum(self.logprobs)


def split(tokenizer: Tokenizer, prompt: str, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Ids of a prompt and of each text that goes on from it, as the whole is tokenized.

    Spaces at the prompt's end belong to what follows, as they do in most tokenizers' words.
    """
    kept = prompt.rstrip()
    first = tokenizer.encode(kept)
    whole = (tokenizer.encode(kept + prompt[len(kept) :] + text) for text in continuations)
    return first, [ids[len(first) :] for ids in whole]


def score(cache: PromptCache, prompt: list[int], continuations: Sequence[list[int]]) -> list[Continuation]:
    """Score each of them; the prompt is computed once."""
    last = cache.prompt(prompt, Timings())[None]
    return [_score(cache, prompt, last, ids) for ids in continuations]


def _score(cache: PromptCache, prompt: list[int], last: "npt.NDArray[np.float32]", ids: list[int]) -> Continuation:
    logprobs, greedy = token_logprobs(last, ids[:1])
    if len(ids) > 1:
        cache.hold(prompt)
    for first in range(1, len(ids), SCORED):
        following = ids[first : first + SCORED]
        logits = cache.append(ids[first - 1 : first - 1 + len(following)], all_logits=True)
        values, likeliest = token_logprobs(logits, following)
        logprobs, greedy = [*logprobs, *values], greedy and likeliest
    return Continuation(tuple(ids), tuple(logprobs), greedy)


def token_logprobs(logits: "npt.NDArray[np.float32]", following: Sequence[int]) -> tuple[list[float], bool]:
    """Of logits f32 [tokens, vocab]: each following token's logarithm, and whether all are the likeliest."""
    import numpy as np

    values = log_softmax(logits)[np.arange(len(following)), following]
    return values.tolist(), bool((logits.argmax(axis=1) == np.asarray(following)).all())
