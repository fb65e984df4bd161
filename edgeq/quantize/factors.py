"""What error feedback knows of a matrix' inputs: H = E[x x^T] = (I + U) D (I + U)^T, U strictly upper triangular.

The loss of a matrix W is tr((W - W^) H (W - W^)^T) = sum_j D_j |e_j + sum_{i<j} U_ij e_i|^2 for errors e = W - W^, so
column j is rounded where w_j + sum_{i<j} U_ij e_i lies (GPTQ, arXiv:2210.17323; in this form LDLQ, arXiv:2307.13304):
`edgeq/blocks/mending.py` and its compiled twin.

Whole scale groups come one after the other, those whose inputs are largest first: what is rounded last has nobody to
mend its errors. A group's scale is chosen when its turn comes, from the weights as they have been moved. Then they are
rounded again, each for the errors of all others, SWEEPS times.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.mending import Sweeps, runs
from edgeq.blocks.table import BlockType
from edgeq.kernels.mend_api import quantize_panels

F64 = npt.NDArray[np.float64]

TINY = 1e-30
# Of the mean of H's diagonal, added to it: the more, the fewer tokens there are for each of the columns. Found on a
# model of 3 M parameters with 256 to 12288 tokens.
DAMPING, DAMPING_BY_COLUMNS, MOST_DAMPING = 0.01, 2.0, 1.0
DOUBT, DOUBT_BY_COLUMNS = 0.05, 4.0  # the same where corrections are solved for, which ask for more trust
SWEEPS = 3  # on inputs that were held out one saves 5.5 % of a matrix' loss, three 8 %, five 8.5 %


@dataclass(frozen=True)
class Factors:
    """H for scale groups of one size: `order` int [columns], in which they are rounded; I + U, f32 [columns, columns]
    in that order; D f32 [columns], by column; `sweeps` after the first rounding."""

    order: npt.NDArray[np.int64]
    upper: F32
    weights: F32
    sweeps: Sweeps | None

    def quantize(self, target: F32, name: str, threads: int = 1) -> U8:
        """Panels u8 of a matrix of block type `name` that gives nearly what `target`, f32 [rows, columns], gives. The
        same bits come out for any number of threads."""
        return quantize_panels(target, self.order, self.upper, self.weights, name, threads, self.sweeps)[0]


def factored(gram: F64, size: int, damping: float = 0.01, sweeps: int = SWEEPS) -> Factors:
    """H = `gram`, f64 [columns, columns], factored for scale groups of `size` columns, which are rounded again `sweeps`
    times. `damping` times the mean of its diagonal is added to that: what calibration has not seen is not zero."""
    columns = len(gram)
    damped = gram + np.eye(columns) * max(damping * float(np.trace(gram)) / columns, TINY)
    power = np.diagonal(damped)
    groups = [np.arange(first, min(first + size, columns)) for first in range(0, columns, size)]
    groups.sort(key=lambda group: -float(power[group].mean()))
    order = np.concatenate([group[np.argsort(-power[group], kind="stable")] for group in groups])
    triangle = _triangle(damped[np.ix_(order, order)])
    diagonal = np.diagonal(triangle)
    weights = np.empty(columns, np.float32)
    weights[order] = np.square(diagonal / diagonal.max())
    upper = np.ascontiguousarray(triangle / diagonal, np.float32)
    return Factors(order, upper, np.maximum(weights, TINY), _sweeps(damped, order, size, sweeps) if sweeps else None)


def _sweeps(gram: F64, order: npt.NDArray[np.int64], size: int, count: int) -> Sweeps:
    """What rounding groups again needs of H = `gram`."""
    ordered, pull = gram[np.ix_(order, order)], np.empty(gram.shape, np.float32)
    weights = np.empty(len(gram), np.float32)
    for start, stop in runs(order, size):
        own = ordered[start:stop, start:stop]
        pull[:, start:stop] = np.linalg.solve(own, ordered[start:stop]).T
        triangle = _triangle(own)
        diagonal = np.diagonal(triangle)
        pull[start:stop, start:stop] = triangle / diagonal
        weights[order[start:stop]] = np.square(diagonal / diagonal.max())
    return Sweeps(count, pull, np.maximum(weights, TINY))


def _triangle(gram: F64) -> F64:
    """An upper triangle R with H = R R^T: the lower one of H upside down, turned back."""
    return np.asarray(np.linalg.cholesky(gram[::-1, ::-1])[::-1, ::-1], np.float64)


def damping(columns: int, tokens: int, least: float = DAMPING, by_columns: float = DAMPING_BY_COLUMNS) -> float:
    """Of the mean of H's diagonal, for an H that so many tokens were seen for."""
    return min(least + by_columns * columns / tokens, MOST_DAMPING)


class Metric:
    """H = `gram`, f64 [columns, columns], of so many `tokens`: what errors of the matrices that read these cost."""

    def __init__(self, gram: F64, tokens: int, sweeps: int = SWEEPS) -> None:
        self.gram, self._damping, self._sweeps = gram, damping(len(gram), tokens), sweeps
        self._doubt = damping(len(gram), tokens, DOUBT, DOUBT_BY_COLUMNS)
        self._factors: dict[int, Factors] = {}  # by size of the groups

    def quantize(self, target: F32, bt: BlockType, threads: int = 1) -> U8:
        """As Factors.quantize."""
        size = bt.coded_columns
        if size not in self._factors:
            self._factors[size] = factored(self.gram, size, self._damping, self._sweeps)
        return self._factors[size].quantize(target, bt.name, threads)

    def corrected(self, target: F64, moved: F64) -> F64:
        """`target` + `moved` H^-1, f64 [rows, columns]: what gives, from the rows seen, results nearest to those that
        are off by as much as `moved` tells."""
        columns = len(self.gram)
        trusted = self.gram + np.eye(columns) * max(self._doubt * float(np.trace(self.gram)) / columns, TINY)
        result: F64 = target + np.linalg.solve(trusted, moved.T).T
        return result

    def cost(self, errors: F32) -> float:
        """tr(E H E^T) of errors f32 [rows, columns]; unseen directions cost what they are damped by."""
        wide = errors.astype(np.float64)
        unseen = self._damping * float(np.trace(self.gram)) / len(self.gram)
        return float(np.sum((wide @ self.gram) * wide)) + unseen * float(np.square(wide).sum())
