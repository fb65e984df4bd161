"""Shares of values in bins, and how far two distributions over them are apart: the population stability index.

PSI = sum over the bins of (p - q) ln(p / q). It is never negative, so chance alone puts it above zero: Yurdakul,
"Statistical Properties of Population Stability Index" (2018), has (bins - 1) (1 / n + 1 / m) for n and m independent
values. Those of one text are not independent, so here the unit is a text: with s = sum of Var(p of a text) / p, as
measured at calibration, chance gives s (1 / n + 1 / m) for n and m texts. This is subtracted, and what is not well
above it is not believed. What an index means is said as in Siddiqi, "Credit Risk Scorecards" (2006): up to 0.1 nothing
has changed, above 0.25 much has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

LEAST_SHARE = 1e-4  # of a bin: an empty one would be infinitely far
SURE = 3.0  # so many times what chance gives must be left when that is subtracted


class Stability(NamedTuple):
    """An index less what chance gives, not below 0; whether it is more than chance."""

    value: float
    sure: bool


@dataclass(frozen=True)
class Bins:
    """What was seen at calibration, as one or several distributions, whose indices are averaged.

    shares  f64 [distributions, bins], the sum over the bins is 1
    spread  s as above, on average
    """

    shares: F64
    spread: float

    def stability(self, counts: I64, texts: float, calibrated: int) -> Stability:
        """Of int64 [distributions, bins], of so many texts, beside as many calibrated ones."""
        total = counts.sum(1, keepdims=True)
        if not texts or not total.all():
            return Stability(0.0, False)
        p, q = np.maximum(counts / total, LEAST_SHARE), np.maximum(self.shares, LEAST_SHARE)
        chance = self.spread * (1 / texts + 1 / calibrated)
        left = float(np.sum((p - q) * np.log(p / q), axis=1).mean()) - chance
        return Stability(max(left, 0.0), left > SURE * chance)


@dataclass(frozen=True)
class Histograms(Bins):
    """Those of numbers. `edges`, f64 [distributions, bins - 1], not descending: where each bin but the first begins."""

    edges: F64

    def counts(self, x: npt.NDArray[np.floating]) -> I64:
        """int64 [distributions, bins] of [values, distributions]."""
        return counts_between(self.edges, x)


def counts_between(edges: F64, x: npt.NDArray[np.floating]) -> I64:
    """int64 [distributions, bins]: how many of [values, distributions] are from one edge on, and below the next."""
    distributions, bins = len(edges), edges.shape[1] + 1
    if distributions == 1:  # sorting is quicker than to look for the bin of each
        below: I64 = np.concatenate([[0], np.searchsorted(np.sort(x[:, 0]), edges[0]), [len(x)]])
        return (below[1:] - below[:-1])[None]
    place = (x[:, :, None] >= edges).sum(2) + bins * np.arange(distributions)
    return np.bincount(place.ravel(), minlength=bins * distributions).reshape(distributions, bins)


def spread_of(texts: Sequence[I64], shares: F64) -> float:
    """s of texts, int64 [distributions, bins] each, whose values have these shares in all."""
    own = np.array([one / one.sum(1, keepdims=True) for one in texts if one.sum(1).all()])
    if len(own) < 2:
        return 0.0
    return float(np.sum(own.var(0, ddof=1) / np.maximum(shares, LEAST_SHARE), axis=1).mean())
