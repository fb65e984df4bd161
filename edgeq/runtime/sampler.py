"""Chooses the next token from logits.

The filters work in llama.cpp's order: repetition penalty, top_k, top_p, min_p, temperature, draw. The penalty is that
of CTRL (Keskar et al., 2019); top_p is nucleus sampling (Holtzman et al., 2019); min_p is Nguyen et al., 2024.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError, UsageError

_BLOCK = 64  # logits per block of the threshold search in `top_ids`


@dataclass(frozen=True)
class SamplerParams:
    """How tokens are drawn. Raises UsageError for a value that cannot work.

    temperature         0 takes the likeliest token, always; higher is more surprising
    top_k               only the k likeliest tokens; 0 is all
    top_p               only the likeliest tokens that together reach this probability; 1 is all
    min_p               only tokens at least this likely relative to the likeliest; 0 is all
    repetition_penalty  divides a recent token's logit if positive, else multiplies it; 1 is none
    repetition_window   how many recent tokens the penalty looks at
    seed                of the generator; None takes one from the operating system
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        self._need("temperature", 0 <= self.temperature < math.inf, "0 or more")
        self._need("top_k", self.top_k >= 0, "0 (all tokens) or more")
        self._need("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1")
        self._need("min_p", 0 <= self.min_p <= 1, "between 0 and 1")
        self._need("repetition_penalty", 0 < self.repetition_penalty < math.inf, "more than 0")
        self._need("repetition_window", self.repetition_window >= 0, "0 or more")
        self._need("seed", self.seed is None or self.seed >= 0, "0 or more")

    def _need(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UsageError(f"{name} is {getattr(self, name)!r}: it must be {wanted}")


class Sampler:
    """Draws tokens one after another, from a random generator of its own."""

    def __init__(self, params: SamplerParams):
        self.params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed))

    def sample(self, logits: npt.NDArray[np.float32], recent: Sequence[int] = ()) -> int:
        """The next token's id from its logits, f32[vocab]; `recent` are the ids before it, the latest last.

        With temperature 0 it is the largest logit, at a tie the one with the lowest id. Raises EdgeqError where the
        largest logit is not finite.
        """
        params = self.params
        logits = self._penalized(logits, recent)
        best = int(np.argmax(logits))  # a NaN wins
        if not math.isfinite(logits[best]):
            raise EdgeqError(f"the model computed {logits[best]} for token {best}: nothing can be drawn from that")
        if params.temperature == 0:
            return best
        ids, kept = self._candidates(logits, float(logits[best]))
        weights = np.cumsum(np.exp((kept - float(logits[best])) / params.temperature))
        draw = int(np.searchsorted(weights, self._random.random() * weights[-1], side="right"))
        return int(ids[min(draw, len(ids) - 1)])

    def _penalized(self, logits: npt.NDArray[np.float32], recent: Sequence[int]) -> npt.NDArray[np.float32]:
        params = self.params
        if params.repetition_penalty == 1.0 or params.repetition_window == 0 or not recent:
            return logits
        seen = np.unique(np.asarray(recent[-params.repetition_window :], dtype=np.int64))
        logits = logits.copy()
        values = logits[seen]
        penalty = np.float32(params.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        return logits

    def _candidates(
        self, logits: npt.NDArray[np.float32], largest: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """(ids, logits f64) that top_k, top_p and min_p leave."""
        params = self.params
        if 0 < params.top_k < len(logits):
            ids = top_ids(logits, params.top_k)
        else:
            ids = np.arange(len(logits))
        kept = logits[ids].astype(np.float64)
        total = float(np.exp(kept - largest).sum()) if params.top_p < 1 else 0.0
        # min_p and top_p both keep a prefix of the order, so which is cut first makes no difference: min_p first leaves
        # less to sort.
        if params.min_p > 0:
            likely = kept >= largest + math.log(params.min_p)
            ids, kept = ids[likely], kept[likely]
        if params.top_p < 1:
            order = np.argsort(-kept, kind="stable")
            ids, kept = ids[order], kept[order]
            reached = np.cumsum(np.exp(kept - largest)) / total
            count = 1 + int(np.searchsorted(reached, params.top_p, side="left"))
            ids, kept = ids[:count], kept[:count]
        return ids, kept


def top_ids(logits: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Ids of the k largest logits in rising order of id; at a tie for the last place the lower ids.

    At least k values reach the k-th largest of the blocks' maxima, so that only the few values that do need sorting.
    """
    whole = len(logits) // _BLOCK * _BLOCK
    maxima = logits[:whole].reshape(-1, _BLOCK).max(axis=1)
    if len(maxima) > k:
        threshold = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
        ids = np.flatnonzero(logits >= threshold)
    else:
        ids = np.arange(len(logits))
    order = np.argsort(-logits[ids], kind="stable")[:k]
    return np.sort(ids[order])
