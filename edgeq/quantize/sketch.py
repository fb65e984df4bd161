"""What values a matrix reads, counted in bins as wide as their values are large: any quantile follows, within 1.6 %.

A bin is the upper 14 bits of an f32: its sign, its exponent, 5 bits of its fraction. Counts are whole numbers, so that
what several threads, passes or texts have counted adds up to the same, in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

F32Array = npt.NDArray[np.float32]
I64Array = npt.NDArray[np.int64]

SHIFT = 18  # bits of an f32 that a bin leaves out
BINS = 1 << (32 - SHIFT)
NEGATIVE = BINS // 2  # the first bin of negative numbers
# All bins by what is in them, ascending; the zeros are in the middle
ASCENDING = np.concatenate([np.arange(BINS - 1, NEGATIVE - 1, -1), np.arange(NEGATIVE)])


def bin_counts(x: F32Array) -> I64Array:
    """int64 [BINS]: how many of the finite values f32 [...] fall into each bin."""
    return np.bincount(np.ascontiguousarray(x).view(np.uint32).ravel() >> SHIFT, minlength=BINS)


@dataclass(frozen=True)
class Sketch:
    """Values that were read.

    counts          int64 [BINS], of a sample of the rows, those that a text begins with aside
    minimum, maximum of all rows
    channel_maxima  f32 [columns], the largest magnitude in each column, of all rows
    """

    counts: I64Array
    minimum: float
    maximum: float
    channel_maxima: F32Array

    @staticmethod
    def of(x: F32Array) -> "Sketch":
        """That of finite rows f32 [rows, columns], all of them in the sample."""
        return Sketch(bin_counts(x), float(x.min()), float(x.max()), np.abs(x).max(0))

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def magnitude(self) -> float:
        """The largest magnitude of all rows."""
        return max(-self.minimum, self.maximum)

    @cached_property
    def histogram(self) -> tuple[npt.NDArray[np.float64], I64Array]:
        """The middles of the bins that are not empty, f64 ascending and within minimum and maximum; their counts."""
        bins = ASCENDING[self.counts[ASCENDING] > 0]
        middles = ((bins.astype(np.uint32) << SHIFT) | (1 << (SHIFT - 1))).astype(np.uint32).view(np.float32)
        middles = np.where(bins % NEGATIVE == 0, np.float32(0), middles)
        return np.clip(middles.astype(np.float64), self.minimum, self.maximum), self.counts[bins]

    def quantile(self, p: float | Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The least value that a share `p` of the values is not above, f64 of the shape of p; NaN of no values.
        Of 0 and 1 the minimum and maximum of all rows."""
        values, counts = self.histogram
        p = np.asarray(p, np.float64)
        if not len(values):
            return np.full(p.shape, np.nan)
        below = np.cumsum(counts)
        found = values[np.minimum(np.searchsorted(below, p * below[-1]), len(values) - 1)]
        return np.where(p <= 0, self.minimum, np.where(p >= 1, self.maximum, found))

    def edges(self, bins: int) -> F32Array:
        """f32 [bins - 1], not descending: between them are about equal shares of the values. Each is the least value
        of a bin of ours, so that counts of what is between them are known."""
        mine = ASCENDING[self.counts[ASCENDING] > 0]
        below = np.cumsum(self.counts[mine])
        next_share = np.searchsorted(below, below[-1] * np.arange(1, bins) / bins) + 1
        next_share = np.minimum(next_share, len(mine) - 1)
        least = np.where(mine < NEGATIVE, mine << SHIFT, (mine << SHIFT) | ((1 << SHIFT) - 1))
        found: F32Array = least[next_share].astype(np.uint32).view(np.float32)
        return found

    def magnitudes(self) -> "Sketch":
        """That of the values without their signs."""
        counts = np.zeros(BINS, np.int64)
        counts[:NEGATIVE] = self.counts[:NEGATIVE] + self.counts[NEGATIVE:]
        least = max(self.minimum, -self.maximum, 0.0)  # zero lies between, unless all have one sign
        return Sketch(counts, least, self.magnitude, self.channel_maxima)

    def __add__(self, other: "Sketch") -> "Sketch":
        """That of the rows of both."""
        return Sketch(
            self.counts + other.counts,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            np.maximum(self.channel_maxima, other.channel_maxima),
        )
