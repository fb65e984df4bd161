"""The search for w = d q + m, where each group has its own d and m, both f16 (Q4_1, Q5_1)."""

import numpy as np

from edgeq.blocks.fields import F32
from edgeq.blocks.search_steps import (
    TINY,
    count_of,
    half,
    inverse_of,
    quotient,
    round_between,
    total_of,
    weighed,
    where,
)

# What is added to the largest code for each candidate step.
OFFSET_STEPS = tuple(t / 4 for t in range(-12, 5))
OFFSET_ROUNDS = 2


def search_offsets(x: F32, levels: int, importance: F32 | None = None) -> tuple[F32, F32, F32]:
    """d, m f16 [groups, lanes]; codes, like x. Importance is as x is."""
    low, d, m = _best(x, importance, levels)
    codes = offset_codes(x, d, m, levels)
    error = _error(x, importance, codes, d, m)
    for _ in range(OFFSET_ROUNDS):  # f16 has moved d and m, and so the codes
        _, scale, offset = _fit(x - low, importance, codes)
        new_d, new_m = half(scale), half(low + offset)
        new_codes = offset_codes(x, new_d, new_m, levels)
        new_error = _error(x, importance, new_codes, new_d, new_m)
        better = new_error < error
        d, m, error = where(better, new_d, d), where(better, new_m, m), where(better, new_error, error)
        codes = where(better, new_codes, codes)
    return d, m, codes


def _best(x: F32, importance: F32 | None, levels: int) -> tuple[F32, F32, F32]:
    """The smallest weight, d and m [groups, lanes] of the candidate step with the largest gain."""
    low = x.min(axis=0)
    span = x.max(axis=0) - low
    above = x - low
    gain = np.full_like(low, -1)
    scale, offset = np.zeros_like(low), np.zeros_like(low)
    for step in OFFSET_STEPS:
        inverse = where(span > np.float32(TINY), np.float32(levels + step) / span, np.float32(0))
        fit = _fit(above, importance, np.minimum(np.rint(above * inverse), np.float32(levels)))
        better = fit[0] > gain
        gain, scale, offset = (where(better, new, old) for new, old in zip(fit, (gain, scale, offset), strict=True))
    return low, half(scale), half(low + offset)


def _fit(above: F32, importance: F32 | None, codes: F32) -> tuple[F32, F32, F32]:
    """(gain, scale, offset) of the least-squares fit above ~ scale * codes + offset."""
    n, total = count_of(above, importance), total_of(weighed(above, importance))
    counted = weighed(codes, importance)
    sum_q, sum_qq, sum_xq = total_of(counted), total_of(counted * codes), total_of(above * counted)
    scale = quotient(n * sum_xq - sum_q * total, n * sum_qq - sum_q * sum_q)
    offset: F32 = np.divide(total - scale * sum_q, n, dtype=np.float32)
    return scale * sum_xq + offset * total, scale, offset


def offset_codes(x: F32, d: F32, m: F32, levels: int) -> F32:
    return round_between((x - m) * inverse_of(d), 0, levels)


def _error(x: F32, importance: F32 | None, codes: F32, d: F32, m: F32) -> F32:
    """Squared error [groups, lanes] of the decoded weights, in the decoder's order of operations."""
    residual = d * codes + m - x
    return total_of(weighed(residual * residual, importance))
