"""The tokens that may be drawn, which the steps of the sampler make fewer."""

import math
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_BLOCK = 64  # logits of which a maximum or a sum is looked at first
_PIECE = 8192  # logits of which weights are estimated at once: the numbers between stay in the cache
MANY = 8192  # candidates of which weights are estimated before all are computed in f64, which takes 25 times as long

# What f32 may be off by, as a share: NumPy's e to the power of x by 2.6 units in its last place, x by being rounded.
_EXP_ERROR, _ROUNDING = 2.75 * 2.0**-23, 1.01 * 2.0**-24
_LEAST = np.float32(-87.0)  # e to the power of less has no full precision in f32; it is counted as an error


class Candidates:
    """Tokens and their logits, none changed in place: a step makes others of them.

    largest  the largest logit of all that there were when this whole began
    total    of the weights among which a token's share is its probability: those of all candidates that there were
             before steps began to `keep` some by their probability
    """

    def __init__(
        self,
        logits: npt.NDArray[Any],
        largest: float,
        ids: npt.NDArray[np.int64] | None = None,
        among: "Candidates | None" = None,
        temperature: float = 1.0,
    ) -> None:
        """`logits` of the tokens `ids`, which are in rising order or the likeliest first; None are all tokens. The
        temperature divides differences of logits."""
        self.largest, self._temperature = largest, temperature
        self._logits, self._ids, self._among = logits, ids, among

    def __len__(self) -> int:
        return len(self._logits)

    @cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self)) if self._ids is None else self._ids

    @cached_property
    def logits(self) -> npt.NDArray[np.float64]:
        return self._logits.astype(np.float64, copy=False)

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """What each is worth, not normalized: e to the power of its logit, 1 for the largest."""
        weights: npt.NDArray[np.float64] = np.exp((self.logits - self.largest) / self._temperature)
        return weights

    @cached_property
    def total(self) -> float:
        return float(self.weights.sum()) if self._among is None else self._among.total

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """The probability of each, by what all of these are worth."""
        shares: npt.NDArray[np.float64] = self.weights / self.weights.sum()
        return shares

    @cached_property
    def mean_surprise(self) -> float:
        """The entropy of `shares`, in natural units."""
        shares = self.shares[self.shares > 0]
        return float(-(shares * np.log(shares)).sum())

    @cached_property
    def total_bounds(self) -> tuple[float, float]:
        """Between which `total` is; both are it where there are not many candidates."""
        if self._among is not None:
            return self._among.total_bounds
        if len(self) <= MANY:
            return self.total, self.total
        weights, error = self._estimate
        total = float(weights.sum(dtype=np.float64))
        return total - error, total + error

    @cached_property
    def _estimate(self) -> tuple[npt.NDArray[np.float32], float]:
        """Weights f32, and what any sum of them is off by at most."""
        weights, error = np.empty(len(self), np.float32), len(self) * float(np.exp(_LEAST))
        plain = self._temperature == 1 and self._logits.dtype == np.float32
        for first in range(0, len(self), _PIECE):
            logits, here = self._logits[first : first + _PIECE], weights[first : first + _PIECE]
            if plain:
                away = logits - np.float32(self.largest)
            else:
                away = ((logits.astype(np.float64) - self.largest) / self._temperature).astype(np.float32)
            np.exp(np.maximum(away, _LEAST, out=away), out=here)
            error += _EXP_ERROR * float(here.sum()) - _ROUNDING * float(np.vdot(here, away))
        return weights, error

    def reaching(self, logit: float) -> npt.NDArray[np.int64]:
        """Places of the candidates whose logit is at least this."""
        least = self._logits.dtype.type(max(logit, float(np.finfo(self._logits.dtype).min)))
        if float(least) < logit:  # in f32 the same are at or above the next number
            least = np.nextafter(least, self._logits.dtype.type(np.inf))
        return np.flatnonzero(self._logits >= least)

    def keep(self, which: Any) -> Self:
        """Those of a mask, a slice or an order of positions; probabilities stay what they are."""
        return type(self)(
            self._logits[which], self.largest, self._chosen(which), self._among or self, self._temperature
        )

    def renewed(self, which: Any) -> "Candidates":
        """Those of an order of positions, among which probabilities are counted from here on."""
        logits = self._logits[which]
        return Candidates(logits, float(logits.max()), self._chosen(which), temperature=self._temperature)

    def top(self, k: int) -> "Candidates":
        """The k likeliest, among which probabilities are counted from here on."""
        return self.renewed(top_ids(self._logits, k))

    def likeliest(self, k: int) -> Self:
        """The k likeliest; probabilities stay what they are."""
        return self.keep(top_ids(self._logits, k))

    def nucleus(self, share: float, least: int) -> Self:
        """The likeliest that together reach this share of `total`, at least so many, the likeliest first."""
        heads = [self._heaviest(share)] if len(self) > MANY else []
        among = self._among or self
        for places in (*heads, np.arange(len(self))):
            ordered = self.keep(places[_order(self._logits[places])])
            sums = ordered.weights.cumsum()
            low, high = among.total_bounds
            count, most = (1 + int((sums / total).searchsorted(share, side="left")) for total in (high, low)[::-1])
            if max(most, least) <= len(places) or len(places) == len(self):
                break
        if count != most:
            count = 1 + int((sums / among.total).searchsorted(share, side="left"))
        return ordered.keep(slice(max(count, least)))

    def _heaviest(self, share: float) -> npt.NDArray[np.int64]:
        """Places of the likeliest that together reach a share of `total` by estimates, and of some more: all whose
        logits are as near the largest, in eighths."""
        weights, error = self._estimate
        eighths = np.minimum((self.largest - self._logits) * 8, 1024).astype(np.int64)
        sums = np.bincount(eighths, weights=weights).cumsum()
        return np.flatnonzero(eighths <= sums.searchsorted(share * (self._among or self).total_bounds[1] + error))

    def tempered(self, temperature: float) -> "Candidates":
        """The same tokens with their differences divided by the temperature."""
        return Candidates(self._logits, self.largest, self._ids, temperature=temperature)

    def surprising_less(self, surprise: float) -> "Candidates":
        """Those whose share's logarithm is above the negative of this, at least the likeliest; a new whole."""
        low, high = self.total_bounds
        bound = self.largest + self._temperature * (math.log((low + high) / 2) - surprise)
        return self.renewed(self.reaching(min(bound, self.largest)))

    def id(self, place: int) -> int:
        """The token at a place."""
        return place if self._ids is None else int(self._ids[place])

    def drawn(self, number: float) -> int:
        """The place of the candidate at which sums of weights pass this share of all, from 0 to 1.

        Of many, estimates say so, and exact weights only where these leave a doubt.
        """
        if len(self) > MANY and (place := self._surely_drawn(number)) is not None:
            return place
        exact = self.weights.cumsum()
        return min(int(exact.searchsorted(number * exact[-1], side="right")), len(self) - 1)

    def _surely_drawn(self, number: float) -> int | None:
        """What `drawn` finds, if estimates are enough to say so."""
        weights, error = self._estimate
        pieces = (weights[first : first + _PIECE] for first in range(0, len(weights), _PIECE))
        starts = np.arange(0, _PIECE, _BLOCK)
        blocks = [np.add.reduceat(piece.astype(np.float64), starts[: -(-len(piece) // _BLOCK)]) for piece in pieces]
        sums = np.concatenate(blocks).cumsum()
        total = float(sums[-1])
        at, slack = number * total, (1 + number) * error + 1e-12 * total
        block = int(sums.searchsorted(at, side="right"))
        within = (sums[block - 1] if block else 0.0) + weights[block * _BLOCK :][:_BLOCK].cumsum(dtype=np.float64)
        place = int(within.searchsorted(at, side="right"))
        if place == len(within) or within[place] <= at + slack:
            return None
        before = within[place - 1] if place else sums[block - 1] if block else -1.0
        return block * _BLOCK + place if before <= at - slack else None

    def _chosen(self, which: Any) -> npt.NDArray[np.int64]:
        if self._ids is None and isinstance(which, np.ndarray) and which.dtype == np.int64:
            return which
        chosen: npt.NDArray[np.int64] = self.ids[which]
        return chosen


def top_ids(logits: npt.NDArray[Any], k: int) -> npt.NDArray[np.int64]:
    """Ids of the k largest logits in rising order of id; at a tie for the last place the lower ids."""
    ids = _reaching(logits, k)
    order = np.argsort(-logits[ids], kind="stable")[:k]
    return np.sort(ids[order])


def _reaching(logits: npt.NDArray[Any], k: int) -> npt.NDArray[np.int64]:
    """Ids, in rising order, of the k largest logits and perhaps some others: of all that reach a threshold.

    At least k values reach the k-th largest of the blocks' maxima, so that only the few values that do need sorting.
    """
    whole = len(logits) // _BLOCK * _BLOCK
    maxima = logits[:whole].reshape(-1, _BLOCK).max(axis=1)
    if len(maxima) <= k:
        return np.arange(len(logits))
    threshold = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    return np.flatnonzero(logits >= threshold)


def _order(logits: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Places of logits from the largest down, of equal ones the first first.

    Many of f32 are sorted as integers that have the place in their lower half, which NumPy does faster.
    """
    if len(logits) <= MANY or logits.dtype != np.float32:
        return (-logits).argsort(kind="stable")
    bits = (np.float32(0) - logits).view(np.uint32)  # 0 has one sign only
    bits ^= np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    keys = bits.astype(np.uint64) << np.uint64(32) | np.arange(len(logits), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
