"""Vector steps that both scale searches share, each the twin of a NumPy line of `edgeq.blocks.search_steps`."""

import numpy as np
from numba import types
from numba.extending import intrinsic

from edgeq.blocks.search_steps import F16_MAX, HALF_STEP, TINY
from edgeq.simd.choice import larger, nearest, smaller, through_f16, where_above
from edgeq.simd.vector import absolute, add, device, div, load_splat_f32, mul, splat_f32, zero_f32x16

ROW = 64  # bytes of 16 f32
COLUMNS = 32  # of a group of codes
GROUP = COLUMNS * ROW  # bytes of a group's weights as [column][16 rows]


@device
def constant(value):
    return splat_f32(np.float32(value))


# ---- importances: the address of f32 [columns], or None where all columns count the same ----


@intrinsic
def further(typingctx, importance, columns):
    """The importances from so many columns on."""

    def address(context, b, signature, args):
        return b.add(args[0], b.mul(args[1], args[1].type(4)))

    def none(context, b, signature, args):
        return context.get_dummy_value()

    if isinstance(importance, types.NoneType):
        return types.none(types.none, types.int64), none
    return types.int64(types.int64, types.int64), address


@device
def weighed(x, importance, column):
    if importance is None:
        return x
    return mul(load_splat_f32(importance + column * 4), x)


@device
def count_of(importance, columns):
    """How many columns a sum counts, each as often as its importance says."""
    if importance is None:
        return constant(columns)
    count = load_splat_f32(importance)
    for k in range(1, columns):
        count = add(count, load_splat_f32(importance + k * 4))
    return count


# ---- arithmetic ----


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
