"""The steps from logits to a token: a class each, and the table of them.

A step says its options itself (see `Option`); the command line, /set, the files that models come with, checks and docs
follow. A new one is a class here, its row in STEPS, and for type checkers its keys in `Sampling`. Nothing here imports
NumPy before a token is drawn, as `--help` asks for the options too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from edgeq.decode.option import Option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.decode.candidates import Candidates


class Sampling(TypedDict, total=False):
    """How tokens are drawn; what is left out is as the model's files say, or else the default."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    repetition_window: int
    seed: int | None


class Step:
    """What all steps are: made of the values of all options, of which each takes its own."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        for option in self.options():
            vars(self)[option.name] = values[option.name]

    @classmethod
    def options(cls) -> list[Option[Any]]:
        """Those that the class describes."""
        return [value for value in vars(cls).values() if isinstance(value, Option)]


class Processor(Step):
    """Changes logits; also where the likeliest token is taken."""

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        """Logits f32[vocab], another array where any is changed; `recent` are the ids before, the latest last."""
        raise NotImplementedError


class Filter(Step):
    """Leaves fewer candidates, at least one; only where a token is drawn."""

    def filter(self, candidates: "Candidates") -> "Candidates":
        """Those that are left."""
        raise NotImplementedError


class RepetitionPenalty(Processor):
    """That of CTRL (Keskar et al., 2019): a recent token's logit is divided if positive, else multiplied."""

    repetition_penalty = Option(
        1.0,
        holds=lambda value: 0 < value < math.inf,
        must="more than 0",
        help="Above 1 avoids tokens used lately.",
        config="repetition_penalty",
        gguf="penalty_repeat",
    )
    repetition_window = Option(
        64,
        holds=lambda value: value >= 0,
        must="0 or more",
        help="How many of the latest tokens the repetition penalty looks at.",
    )

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        if self.repetition_penalty == 1.0 or self.repetition_window == 0 or not recent:
            return logits
        import numpy as np

        seen = np.unique(np.asarray(recent[-self.repetition_window :], dtype=np.int64))
        logits = logits.copy()
        values = logits[seen]
        penalty = np.float32(self.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        return logits


class TopK(Filter):
    """The k likeliest tokens."""

    top_k = Option(
        40,
        holds=lambda value: value >= 0,
        must="0 (all tokens) or more",
        help="Draw from the k likeliest tokens; 0 is all.",
        config="top_k",
        means={-1: 0},  # as vLLM has it
        gguf="top_k",
    )

    def filter(self, candidates: "Candidates") -> "Candidates":
        return candidates.top(self.top_k) if 0 < self.top_k < len(candidates) else candidates


class MinP(Filter):
    """Tokens that have this share of the likeliest one's probability (Nguyen et al., 2024)."""

    min_p = Option(
        0.05,
        holds=lambda value: 0 <= value <= 1,
        must="between 0 and 1",
        help="Drop tokens less likely than this share of the best.",
        config="min_p",
        gguf="min_p",
    )

    def filter(self, candidates: "Candidates") -> "Candidates":
        if self.min_p == 0:
            return candidates
        return candidates.keep(candidates.logits >= candidates.largest + math.log(self.min_p))


class TopP(Filter):
    """Nucleus sampling (Holtzman et al., 2019): the likeliest tokens that together reach a probability."""

    top_p = Option(
        0.95,
        holds=lambda value: 0 < value <= 1,
        must="more than 0 and at most 1",
        help="Draw from tokens that together reach this probability.",
        config="top_p",
        gguf="top_p",
    )

    def filter(self, candidates: "Candidates") -> "Candidates":
        if self.top_p == 1:
            return candidates
        ordered = candidates.keep((-candidates.logits).argsort(kind="stable"))
        reached = ordered.weights.cumsum() / ordered.total
        return ordered.keep(slice(1 + int(reached.searchsorted(self.top_p, side="left"))))


class Draw(Step):
    """The draw itself, from a random generator of its own."""

    temperature = Option(
        0.8,
        holds=lambda value: 0 <= value < math.inf,
        must="0 or more",
        help="0 always takes the likeliest token.",
        flags=("--temp",),
        config="temperature",
        gguf="temp",
    )
    seed = Option[int | None](
        None,
        holds=lambda value: value >= 0,
        must="0 or more",
        help="Seed of the draws: the same one gives the same text.",
    )

    def __init__(self, values: Mapping[str, Any]) -> None:
        import numpy as np

        super().__init__(values)
        self._random = np.random.Generator(np.random.PCG64(self.seed))

    def draw(self, candidates: "Candidates") -> int:
        """The id of one."""
        candidates = candidates.tempered(self.temperature)
        weights = candidates.weights.cumsum()
        place = int(weights.searchsorted(self._random.random() * weights[-1], side="right"))
        return int(candidates.ids[min(place, len(candidates) - 1)])


# In the order in which they work, llama.cpp's but for one: min_p comes before top_p. Both keep the likeliest so many,
# and count probabilities among the same tokens, so that which comes first makes no difference, and there is less to
# sort.
STEPS: tuple[type[Step], ...] = (RepetitionPenalty, TopK, MinP, TopP, Draw)


def options() -> dict[str, Option[Any]]:
    """Name -> option of every step, in the order of `Sampling`, in which they are told."""
    found = {option.name: option for step in STEPS for option in step.options()}
    return {name: found[name] for name in (*Sampling.__annotations__, *found)}


def checked(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every option. Raises UsageError for one that cannot work."""
    values = {}
    for name, option in options().items():
        values[name] = sampling.get(name, option.default)
        option.check(values[name])
    return values
