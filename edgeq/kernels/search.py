"""Vector steps that both scale searches share, each the twin of a NumPy line of `edgeq.blocks.search_steps`."""

import numpy as np

from edgeq.blocks.search_steps import F16_MAX, HALF_STEP, TINY
from edgeq.simd.choice import larger, nearest, smaller, through_f16, where_above
from edgeq.simd.vector import absolute, add, device, div, splat_f32, zero_f32x16

ROW = 64  # bytes of 16 f32
COLUMNS = 32  # of a group of codes
GROUP = COLUMNS * ROW  # bytes of a group's weights as [column][16 rows]


@device
def constant(value):
    return splat_f32(np.float32(value))


@device
def inverse(scale):
    """1 / scale, and 0 for scales too small to divide by."""
    return where_above(absolute(scale), constant(TINY), div(constant(1.0), scale), zero_f32x16())


@device
def round_between(x, low, high):
    return smaller(larger(nearest(x), low), high)


@device
def half(x):
    """Rounded to f16 (clamped to its largest number); never minus zero."""
    limit = constant(F16_MAX)
    clamped = smaller(larger(x, constant(-F16_MAX)), limit)
    return through_f16(add(clamped, zero_f32x16()))


@device
def multiple_of(largest, largest_factor):
    """d of which scales up to `largest` are multiples up to `largest_factor`."""
    return half(add(div(largest, constant(largest_factor)), constant(HALF_STEP)))


@device
def quotient(x, y):
    """x / y where y > 0, else 0."""
    return where_above(y, zero_f32x16(), div(x, y), zero_f32x16())
