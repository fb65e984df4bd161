"""Steps that leave fewer candidates."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.decode.option import Option
from edgeq.decode.step import Filter, Text

if TYPE_CHECKING:
    from edgeq.decode.candidates import Candidates


class Truncation(Filter):
    """A filter by probability, which leaves so many candidates at least."""

    min_keep = Option(
        0,
        holds=lambda value: value >= 0,
        must="0 or more",
        help="What min_p, top_p, typical_p and XTC leave at least.",
    )


class TopNSigma(Filter):
    """Tokens whose logits are within n standard deviations of the largest (Tang et al., 2024)."""

    top_n_sigma = Option(
        0.0,
        holds=lambda value: 0 <= value < math.inf,
        must="0 (off) or more",
        help="Draw from tokens within so many standard deviations of the best logit; 0 is all.",
        flags=("--top-nsigma",),
        means={-1: 0},  # as llama.cpp has it
    )

    def filter(self, candidates: "Candidates") -> "Candidates":
        if self.top_n_sigma == 0:
            return candidates
        logits = candidates.logits
        sigma = float(logits[logits > -math.inf].std())
        return candidates.renewed(candidates.reaching(candidates.largest - self.top_n_sigma * sigma))


class TopK(Filter):
    """The k likeliest tokens."""

    top_k = Option(
        40,
        holds=lambda value: value >= 0,
        must="0 (all tokens) or more",
        help="Draw from the k likeliest tokens; 0 is all.",
        config="top_k",
        means={-1: 0},
        gguf="top_k",
    )

    def filter(self, candidates: "Candidates") -> "Candidates":
        return candidates.top(self.top_k) if 0 < self.top_k < len(candidates) else candidates


class Typical(Truncation):
    """Locally typical sampling (Meister et al., 2022): tokens about as surprising as is to be expected."""

    typical_p = Option(
        1.0,
        holds=lambda value: 0 < value <= 1,
        must="more than 0 and at most 1",
        help="Draw from the most typical tokens that together reach this probability.",
        flags=("--typical", "--typ-p"),
    )

    def filter(self, candidates: "Candidates") -> "Candidates":
        if self.typical_p == 1 or len(candidates) == 1:
            return candidates
        import numpy as np

        shares = candidates.shares
        with np.errstate(divide="ignore"):
            distance = np.abs(-np.log(shares) - candidates.mean_surprise)
        order = distance.argsort(kind="stable")
        count = 1 + int(shares[order].cumsum().searchsorted(self.typical_p, side="right"))
        return candidates.renewed(np.sort(order[: max(count, self.min_keep)]))


class MinP(Truncation):
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
        places = candidates.reaching(candidates.largest + math.log(self.min_p))
        if len(places) < self.min_keep:
            return candidates.likeliest(self.min_keep)
        return candidates.keep(places)


class TopP(Truncation):
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
        return candidates if self.top_p == 1 else candidates.nucleus(self.top_p, self.min_keep)


class Xtc(Truncation):
    """Exclude top choices (p-e-w, text-generation-webui 6335): now and then, of the likely tokens only the least."""

    xtc_probability = Option(
        0.0,
        holds=lambda value: 0 <= value <= 1,
        must="between 0 (off) and 1",
        help="How often only the least likely of the likely tokens is left (XTC).",
    )
    xtc_threshold = Option(
        0.1,
        holds=lambda value: 0 <= value <= 1,
        must="between 0 and 1",
        help="From which probability on a token is a likely one for XTC; above 0.5 there is at most one.",
    )

    def __init__(self, values: Mapping[str, Any], text: Text) -> None:
        import numpy as np

        super().__init__(values, text)
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(values["seed"], spawn_key=(1,))))

    def filter(self, candidates: "Candidates") -> "Candidates":
        if self.xtc_probability == 0 or self.xtc_threshold > 0.5 or len(candidates) < 2:
            return candidates
        if self._random.random() >= self.xtc_probability:
            return candidates
        import numpy as np

        likely = np.flatnonzero(candidates.shares >= self.xtc_threshold)
        above = likely[(-candidates.logits[likely]).argsort(kind="stable")][:-1]
        if len(above) == 0 or len(candidates) - len(above) < self.min_keep:
            return candidates
        return candidates.renewed(np.delete(np.arange(len(candidates)), above))
