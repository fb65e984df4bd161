"""What disentangled attention adds to scores: a query has a value for every relative position of a key, and a key one
for every relative position of a query (DeBERTa, arXiv:2006.03654, section 3.1, with buckets as its second version has
them). Its kernel is a part of attention's."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeq.graph.value import Value

TINY = 1e-9  # that the last distance but one, of which the part is 1, is in no further bucket where logarithms differ

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


class RelativeScores(NamedTuple):
    """of_query, of_key: f32 of each head and relative position, of every token of the pass
    buckets:           how many distances to either side are told apart; all up to there if there is no `farthest`
    farthest:          half of the buckets hold one distance each, the others the wider, the farther, up to this one
    """

    of_query: Value
    of_key: Value
    buckets: int
    farthest: int

    def places(self, context: int) -> I64:
        """int64 [2 * context]: which of a head's values counts where a key is so far from a query, in the middle none;
        before it are keys that come before."""
        return places(np.arange(-context, context), self.buckets, self.farthest)


def places(distances: I64, buckets: int, farthest: int) -> I64:
    """Which of 2 * buckets relative positions a key is at that stands so far behind a query; see RelativeScores."""
    apart = -distances
    if farthest:
        half = buckets // 2
        far = np.maximum(np.abs(apart), half) / half
        part = np.log(far) / math.log((farthest - 1) / half)
        wide = np.ceil(part * (half - 1) - TINY) + half
        apart = np.where(np.abs(apart) <= half, apart, np.sign(apart) * wide.astype(np.int64))
    result: I64 = np.clip(apart + buckets, 0, 2 * buckets - 1)
    return result


def reference(of_query: F32, of_key: F32, where: I64) -> F32:
    """The NumPy twin: of_query [tokens, heads, positions], of_key [tokens, heads, positions], `where` [2 * context] as
    `RelativeScores.places` gives it -> what is added to q k^T, f32 [heads, tokens, tokens]."""
    tokens = np.arange(len(of_query))
    at = where[len(where) // 2 + tokens[None] - tokens[:, None]]  # [query, key]
    from_query = np.take_along_axis(of_query.transpose(1, 0, 2), at[None], axis=2)
    from_key = np.take_along_axis(of_key.transpose(1, 0, 2), at.T[None], axis=2).transpose(0, 2, 1)
    return from_query + from_key
