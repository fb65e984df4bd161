"""The searches for w = s v, v being what a code stands for: with a scale in every group (Q8_0, Q4_0, Q5_0), or with
scales that are signed multiples of d (Q6_K).
"""

import numpy as np

from edgeq.blocks.fields import F32
from edgeq.blocks.search_steps import (
    NEIGHBOURS,
    TINY,
    half,
    inverse_of,
    multiple_of,
    quotient,
    round_between,
    total_of,
    where,
)
from edgeq.blocks.table import BlockType

# What is added to the largest magnitude of a code for each candidate step, best around where few codes are left unused.
STEPS = {
    "Q4_0": tuple(t / 4 for t in range(-8, 5)),
    "Q5_0": tuple(t / 4 for t in range(-8, 5)),
    "Q8_0": tuple(t / 2 for t in range(-8, 9)),
    "Q6_K": tuple(t / 2 for t in range(-8, 5)),
}
# Smallest and largest signed code. Q8_0 leaves -128 out, as GGUF writers do.
CODE_RANGE = {"Q4_0": (-8, 7), "Q5_0": (-16, 15), "Q8_0": (-127, 127), "Q6_K": (-32, 31)}
FACTOR_RANGE = {"i8": (-128, 127)}


def search_scales(x: F32, bt: BlockType) -> tuple[F32, F32 | None, F32]:
    """Scales f16 [groups, lanes] and None, or d f16 [1, lanes] and signed factors [groups, lanes]; codes, like x."""
    scale = _best(x, bt)
    if bt.scales not in FACTOR_RANGE:
        d = half(scale)
        return d, None, _values(x, d, bt) + np.float32(bt.zero_point)
    d, factors = _factors(x, scale, bt)
    return d, factors, _values(x, d * factors, bt) + np.float32(bt.zero_point)


def _nearest(x: F32, bt: BlockType) -> F32:
    """What the code that fits best stands for."""
    return round_between(x, *CODE_RANGE[bt.name])


def _values(x: F32, scale: F32, bt: BlockType) -> F32:
    return _nearest(x * inverse_of(scale), bt)


def _best(x: F32, bt: BlockType) -> F32:
    """Scale [groups, lanes] of the candidate step with the largest gain, before it is coded.

    In each candidate the entry farthest from zero goes to about the lowest value.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    farthest = where(-low >= high, low, high)
    usable = np.abs(farthest) > np.float32(TINY)
    gain = np.full(x.shape[1:], -1, np.float32)
    scale = np.zeros_like(gain)
    for step in STEPS[bt.name]:
        inverse = where(usable, np.float32(CODE_RANGE[bt.name][0] - step) / farthest, np.float32(0))
        values = _nearest(x * inverse, bt)
        sum_qq, sum_xq = total_of(values * values), total_of(x * values)
        fitted = quotient(sum_xq, sum_qq)
        new_gain = fitted * sum_xq
        better = new_gain > gain
        gain, scale = where(better, new_gain, gain), where(better, fitted, scale)
    return scale


def _error(x: F32, scale: F32, bt: BlockType) -> F32:
    residual = scale * _values(x, scale, bt) - x
    return total_of(residual * residual)


def _factors(x: F32, scale: F32, bt: BlockType) -> tuple[F32, F32]:
    """d [1, lanes] and signed factors [groups, lanes] that code these scales with little error."""
    least, most = FACTOR_RANGE[bt.scales]
    d = multiple_of(np.abs(scale), most)
    start = round_between(scale * inverse_of(d), least, most)
    factors, error = start, _error(x, d * start, bt)
    for near in NEIGHBOURS:
        factor = round_between(start + np.float32(near), least, most)
        new_error = _error(x, d * factor, bt)
        better = new_error < error
        factors, error = where(better, factor, factors), where(better, new_error, error)
    values = _values(x, d * factors, bt)
    aa = total_of(factors * factors * total_of(values * values))
    ax = total_of(factors * total_of(x * values))
    new_d = half(np.maximum(quotient(ax, aa), np.float32(0)))
    new_error = _error(x, new_d * factors, bt)
    better = total_of(new_error) < total_of(error)
    return where(better, new_d, d), factors
