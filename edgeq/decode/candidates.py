"""The tokens that may be drawn, which the steps of the sampler make fewer."""

from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_BLOCK = 64  # logits per block of the threshold search in `top_ids`


class Candidates:
    """Tokens and their logits, none changed in place: a step makes others of them.

    largest  the largest logit of all
    total    of the weights among which a token's share is its probability: those of all candidates that there were
             before steps began to `keep` some by their probability
    """

    def __init__(
        self,
        logits: npt.NDArray[Any],
        largest: float,
        ids: npt.NDArray[np.int64] | None = None,
        among: "Candidates | None" = None,
    ) -> None:
        """`logits` of the tokens `ids`, which are in rising order or the likeliest first; None are all tokens."""
        self.largest = largest
        self._logits, self._ids, self._among = logits, ids, among

    def __len__(self) -> int:
        return len(self._logits)

    @cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self)) if self._ids is None else self._ids

    @cached_property
    def logits(self) -> npt.NDArray[np.float64]:
        return self._logits.astype(np.float64, copy=False)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """What each is worth, not normalized: e to the power of its logit, 1 for the largest."""
        weights: npt.NDArray[np.float64] = np.exp(self.logits - self.largest)
        return weights

    @cached_property
    def total(self) -> float:
        return float(self.weights.sum()) if self._among is None else self._among.total

    def keep(self, which: Any) -> Self:
        """Those of a mask, a slice or an order of positions; probabilities stay what they are."""
        return type(self)(self.logits[which], self.largest, self.ids[which], self._among or self)

    def top(self, k: int) -> "Candidates":
        """The k likeliest, among which probabilities are counted from here on."""
        places = top_ids(self._logits, k)
        return Candidates(self._logits[places], self.largest, places if self._ids is None else self._ids[places])

    def tempered(self, temperature: float) -> "Candidates":
        """The same tokens with their differences divided by the temperature."""
        return Candidates((self.logits - self.largest) / temperature, 0.0, self._ids)


def top_ids(logits: npt.NDArray[Any], k: int) -> npt.NDArray[np.int64]:
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
