"""The search for w = s q - m with m >= 0, where s and m are multiples of d and dmin (Q2_K, Q4_K, Q5_K)."""

from collections.abc import Sequence

import numpy as np

from edgeq.blocks.fields import F32
from edgeq.blocks.search_steps import (
    NEIGHBOURS,
    TINY,
    count_of,
    half,
    inverse_of,
    multiple_of,
    quotient,
    round_between,
    total_of,
    weighed,
    where,
)
from edgeq.blocks.table import BlockType

# What is added to the largest code for each candidate step, best around where few codes are left unused; by bits.
MIN_STEPS = {2: tuple(t / 8 for t in range(-8, 7)), 4: tuple(t / 4 for t in range(-12, 5))}
MIN_STEPS[5] = MIN_STEPS[4]
MOST = {"u6": 63, "u4": 15}  # the largest factor
MIN_ROUNDS = 2


def search_mins(x: F32, bt: BlockType, importance: F32 | None = None) -> tuple[F32, F32, F32, F32, F32]:
    """d, dmin [1, lanes]; scale and min factors [groups, lanes]; codes, like x. Importance is as x is."""
    levels, most = bt.levels, MOST[bt.scales]
    scale, minimum = _best_with_min(x, importance, levels, MIN_STEPS[bt.bits])
    d, dmin = multiple_of(scale, most), multiple_of(minimum, most)
    scales, mins = _coded(scale, d, most), _coded(minimum, dmin, most)
    for _ in range(MIN_ROUNDS):
        scales, mins, error = _neighbours_with_min(x, importance, d, dmin, scales, mins, levels, most)
        d, dmin = _refit_with_min(x, importance, d, dmin, scales, mins, error, levels)
    return d, dmin, scales, mins, codes_with_min(x, d * scales, dmin * mins, levels)


def factors_with_min(x: F32, importance: F32, d: F32, dmin: F32, bt: BlockType) -> tuple[F32, F32]:
    """Scale and min factors [groups, lanes] for a d and dmin that are settled."""
    levels, most = bt.levels, MOST[bt.scales]
    scale, minimum = _best_with_min(x, importance, levels, MIN_STEPS[bt.bits])
    scales, mins = _coded(scale, d, most), _coded(minimum, dmin, most)
    for _ in range(MIN_ROUNDS):
        scales, mins, _ = _neighbours_with_min(x, importance, d, dmin, scales, mins, levels, most)
    return scales, mins


def _coded(scale: F32, d: F32, most: int) -> F32:
    return round_between(scale * inverse_of(d), 0, most)


def _best_with_min(x: F32, importance: F32 | None, levels: int, steps: Sequence[float]) -> tuple[F32, F32]:
    """Scale and min [groups, lanes] of the candidate step with the largest gain, before they are coded."""
    total = total_of(weighed(x, importance))
    low = np.minimum(x.min(axis=0), np.float32(0))
    span = x.max(axis=0) - low
    gain = np.full_like(total, -1)
    scale, offset = np.zeros_like(total), np.zeros_like(total)
    for step in steps:
        inverse = where(span > np.float32(TINY), np.float32(levels + step) / span, np.float32(0))
        codes = np.minimum(np.rint((x - low) * inverse), np.float32(levels))
        fit = _fit_with_min(x, importance, total, codes)
        better = fit[0] > gain
        gain, scale, offset = (where(better, new, old) for new, old in zip(fit, (gain, scale, offset), strict=True))
    return np.maximum(scale, np.float32(0)), -offset


def _fit_with_min(x: F32, importance: F32 | None, total: F32, codes: F32) -> tuple[F32, F32, F32]:
    """(gain, scale, offset) of the least-squares fit x ~ scale * codes + offset with offset <= 0."""
    n = count_of(x, importance)
    sum_q, sum_qq, sum_xq = _sums_of(x, importance, codes)
    determinant = n * sum_qq - sum_q * sum_q
    scale = quotient(n * sum_xq - sum_q * total, determinant)
    offset: F32 = np.divide(total - scale * sum_q, n, dtype=np.float32)
    above = offset > 0
    through_zero = quotient(sum_xq, sum_qq)
    scale = where(above, through_zero, scale)
    offset = where(above, np.float32(0), offset)
    return scale * sum_xq + offset * total, scale, offset


def _sums_of(x: F32, importance: F32 | None, codes: F32) -> tuple[F32, F32, F32]:
    """Sums over columns of codes, of codes squared, of weights times codes."""
    counted = weighed(codes, importance)
    return total_of(counted), total_of(counted * codes), total_of(x * counted)


def codes_with_min(x: F32, scale: F32, minimum: F32, levels: int) -> F32:
    return round_between((x + minimum) * inverse_of(scale), 0, levels)


def _error_with_min(x: F32, importance: F32 | None, scale: F32, minimum: F32, levels: int) -> F32:
    """Squared error [groups, lanes] of the decoded weights, in the decoder's order of operations."""
    residual = scale * codes_with_min(x, scale, minimum, levels) - minimum - x
    return total_of(weighed(residual * residual, importance))


def _neighbours_with_min(
    x: F32, importance: F32 | None, d: F32, dmin: F32, scales: F32, mins: F32, levels: int, most: int
) -> tuple[F32, F32, F32]:
    """The factors with the least error near the given ones, and that error, each [groups, lanes].

    For each neighbouring scale factor, the min that fits its codes best, and the two beside that.
    """
    total, n = total_of(weighed(x, importance)), count_of(x, importance)
    error = _error_with_min(x, importance, d * scales, dmin * mins, levels)
    best: list[F32] = [error, scales, mins]
    for near in NEIGHBOURS:
        factor = round_between(scales + np.float32(near), 0, most)
        scale = d * factor
        codes = codes_with_min(x, scale, dmin * mins, levels)
        fitted = (scale * total_of(weighed(codes, importance)) - total) / n
        middle = round_between(fitted * inverse_of(dmin), 0, most)
        for beside in (-1, 0, 1):
            factor_min = round_between(middle + np.float32(beside), 0, most)
            error = _error_with_min(x, importance, scale, dmin * factor_min, levels)
            better = error < best[0]
            new = error, factor, factor_min
            best = [where(better, a, b) for a, b in zip(new, best, strict=True)]
    return best[1], best[2], best[0]


def _refit_with_min(
    x: F32, importance: F32 | None, d: F32, dmin: F32, scales: F32, mins: F32, error: F32, levels: int
) -> tuple[F32, F32]:
    """d and dmin [1, lanes] fitted to factors and codes: x ~ d (scales codes) - dmin mins. Kept where error falls."""
    codes = codes_with_min(x, d * scales, dmin * mins, levels)
    sum_q, sum_qq, sum_xq = _sums_of(x, importance, codes)
    aa = total_of(scales * scales * sum_qq)
    ab = total_of(scales * mins * sum_q)
    bb = total_of(mins * mins * count_of(x, importance))
    ax = total_of(scales * sum_xq)
    bx = total_of(mins * total_of(weighed(x, importance)))
    determinant = aa * bb - ab * ab
    both = np.divide(ax * bb - ab * bx, determinant, dtype=np.float32)
    new_d = where(determinant > 0, both, quotient(ax, aa))
    new_dmin = quotient(ab * ax - aa * bx, determinant)
    new_d = half(np.maximum(new_d, np.float32(0)))
    new_dmin = half(np.maximum(new_dmin, np.float32(0)))
    new_error = _error_with_min(x, importance, new_d * scales, new_dmin * mins, levels)
    better = total_of(new_error) < total_of(error)
    return where(better, new_d, d), where(better, new_dmin, dmin)
