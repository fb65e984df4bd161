"""Means with their errors, percentiles, and tests of significance.

Perplexity and divergence are those of llama.cpp's llama-perplexity, down to how errors are estimated: a mean's standard
error is that of independent positions.
"""

from dataclasses import dataclass
from math import comb, exp, nan, sqrt

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

DRAWS = 9999  # permutations of a test
AT_ONCE = 250  # of them
SEED = 20240229


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error."""

    value: float
    error: float


def mean(values: npt.ArrayLike) -> Estimate:
    """Mean of [n] values, and its standard error."""
    x = np.asarray(values, np.float64)
    if len(x) == 0:
        return Estimate(nan, nan)
    return Estimate(float(x.mean()), float(x.std() / sqrt(len(x) - 1)) if len(x) > 1 else nan)


def share(hits: npt.ArrayLike) -> Estimate:
    """Share of [n] that are true, and its standard error."""
    x = np.asarray(hits, bool)
    p = float(x.mean()) if len(x) else nan
    return Estimate(p, sqrt(p * (1 - p) / (len(x) - 1)) if len(x) > 1 else nan)


def exponential(log: Estimate) -> Estimate:
    """What a logarithm stands for."""
    return Estimate(exp(log.value), exp(log.value) * log.error)


def root_mean_square(values: npt.ArrayLike) -> Estimate:
    square = mean(np.asarray(values, np.float64) ** 2)
    root = sqrt(square.value) if square.value >= 0 else nan
    return Estimate(root, 0.5 / root * square.error if root else 0.0)


def percentiles(values: npt.ArrayLike, percents: tuple[float, ...]) -> dict[str, float]:
    """Percentiles by name ("99.9"), linear between neighbours."""
    x = np.asarray(values, np.float64)
    found = np.percentile(x, percents) if len(x) else np.full(len(percents), nan)
    return {f"{percent:g}": float(value) for percent, value in zip(percents, found, strict=True)}


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact test: how likely flips are at least so one-sided where neither side is better (two-sided)."""
    n, few = lost + gained, min(lost, gained)
    return min(1.0, float(2 * sum(comb(n, i) for i in range(few + 1)) / 2**n))


def larger_by_chance(some: Values, others: Values, draws: int = DRAWS) -> float:
    """Permutation test: how likely [n] of n + m values have a mean so far above the other [m]'s by chance alone.

    One-sided; at least 1 / (1 + draws), and no less than the number of ways to choose them allows. The draws are the
    same each time.
    """
    if len(some) == 0 or len(others) == 0:
        return 1.0
    pool = np.concatenate([some, others])
    observed = some.sum()
    draw, reached = np.random.default_rng(SEED), 0
    for first in range(0, draws, AT_ONCE):
        drawn = draw.permuted(np.tile(pool, (min(AT_ONCE, draws - first), 1)), axis=1)[:, : len(some)]
        reached += int((drawn.sum(axis=1) >= observed - 1e-12).sum())
    return max((1 + reached) / (1 + draws), 1 / comb(len(pool), len(some)))
