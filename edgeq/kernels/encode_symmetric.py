"""The searches for w = s q (Q8_0, Q5_0, Q4_0 with a scale per group; Q6_K with factors of one), 16 rows at a time."""

from edgeq.blocks.search_steps import NEIGHBOURS, TINY
from edgeq.blocks.search_symmetric import CODE_RANGE, STEPS
from edgeq.blocks.table import BlockType
from edgeq.kernels.search import ROW, constant, half, inverse, multiple_of, quotient, round_between
from edgeq.simd.choice import larger, smaller, store_u8x16, to_u8x16, where_above
from edgeq.simd.vector import absolute, add, device, div, load_f32x16, mul, neg, store_f32x16, sub, zero_f32x16

# Rows of 16 f32 in the work space: per scale group its scale or factor, and its error.
SCALES, ERRORS = 0, 16 * ROW


@device
def _farthest(x, columns):
    """The weight of each row that is farthest from zero; the lowest one if it ties with the highest."""
    low, high = load_f32x16(x), load_f32x16(x)
    for k in range(1, columns):
        w = load_f32x16(x + k * ROW)
        low, high = smaller(w, low), larger(w, high)
    return where_above(high, neg(low), high, low)


@device
def _square(w, scale, inv, low, high):
    residual = sub(mul(scale, round_between(mul(w, inv), low, high)), w)
    return mul(residual, residual)


@device
def _error(x, scale, columns, low, high):
    inv = inverse(scale)
    error = _square(load_f32x16(x), scale, inv, low, high)
    for k in range(1, columns):
        error = add(error, _square(load_f32x16(x + k * ROW), scale, inv, low, high))
    return error


@device
def _fit_sums(x, inv, columns, low, high):
    """Sums of code squared and of weight times code."""
    w = load_f32x16(x)
    q = round_between(mul(w, inv), low, high)
    sum_qq, sum_xq = mul(q, q), mul(w, q)
    for k in range(1, columns):
        w = load_f32x16(x + k * ROW)
        q = round_between(mul(w, inv), low, high)
        sum_qq, sum_xq = add(sum_qq, mul(q, q)), add(sum_xq, mul(w, q))
    return sum_qq, sum_xq


def make(bt: BlockType):
    """`search(x, groups, work, codes, offset) -> (d, unused)`.

    Leaves codes plus `offset` (the zero point, or 0 in rows that do not exist) as u8 [column][16] in `codes`; in `work`
    the f16 scale of each group (as f32), or its factor of d.
    """
    lowest, highest = CODE_RANGE[bt.name]
    columns = bt.scale_group
    per_group = 32 // columns
    size = columns * ROW
    steps = STEPS[bt.name]
    coded = bt.scales == "i8"

    @device
    def best(x):
        zero, low, high = zero_f32x16(), constant(lowest), constant(highest)
        farthest = _farthest(x, columns)
        gain, scale = constant(-1.0), zero
        for step in steps:
            inv = div(constant(lowest - step), farthest)
            inv = where_above(absolute(farthest), constant(TINY), inv, zero)
            sum_qq, sum_xq = _fit_sums(x, inv, columns, low, high)
            fitted = quotient(sum_xq, sum_qq)
            new_gain = mul(fitted, sum_xq)
            scale = where_above(new_gain, gain, fitted, scale)
            gain = where_above(new_gain, gain, new_gain, gain)
        return scale

    @device
    def neighbours(x, row, d, low, high):
        """Replace the factor at `row` by the best near it, and store its error."""
        start = load_f32x16(row + SCALES)
        factor, error = start, _error(x, mul(d, start), columns, low, high)
        for near in NEIGHBOURS:
            other = round_between(add(start, constant(near)), constant(-128.0), constant(127.0))
            new_error = _error(x, mul(d, other), columns, low, high)
            factor = where_above(error, new_error, other, factor)
            error = where_above(error, new_error, new_error, error)
        store_f32x16(row + SCALES, factor)
        store_f32x16(row + ERRORS, error)

    @device
    def refit(x, count, work, d, low, high):
        """d fitted to factors and codes, where that lowers the error of the super-block."""
        zero = zero_f32x16()
        aa, ax, old, new = zero, zero, zero, zero
        for g in range(count):
            factor = load_f32x16(work + SCALES + g * ROW)
            sum_qq, sum_xq = _fit_sums(x + g * size, inverse(mul(d, factor)), columns, low, high)
            aa, ax = add(aa, mul(mul(factor, factor), sum_qq)), add(ax, mul(factor, sum_xq))
            old = add(old, load_f32x16(work + ERRORS + g * ROW))
        new_d = half(larger(quotient(ax, aa), zero))
        for g in range(count):
            scale = mul(new_d, load_f32x16(work + SCALES + g * ROW))
            new = add(new, _error(x + g * size, scale, columns, low, high))
        return where_above(old, new, new_d, d)

    @device
    def factor_scales(x, count, work, low, high):
        largest = zero_f32x16()
        for g in range(count):
            largest = larger(absolute(load_f32x16(work + SCALES + g * ROW)), largest)
        d = multiple_of(largest, 127.0)
        inv_d = inverse(d)
        for g in range(count):
            row = work + g * ROW
            factor = round_between(mul(load_f32x16(row + SCALES), inv_d), constant(-128.0), constant(127.0))
            store_f32x16(row + SCALES, factor)
            neighbours(x + g * size, row, d, low, high)
        return refit(x, count, work, d, low, high)

    @device
    def search(x, groups, work, codes, offset):
        low, high = constant(lowest), constant(highest)
        count = groups * per_group
        d = constant(1.0)
        for g in range(count):
            scale = best(x + g * size)
            store_f32x16(work + SCALES + g * ROW, scale if coded else half(scale))
        if coded:
            d = factor_scales(x, count, work, low, high)
        for g in range(count):
            inv = inverse(mul(d, load_f32x16(work + SCALES + g * ROW)))
            for k in range(columns):
                column = g * columns + k
                code = round_between(mul(load_f32x16(x + column * ROW), inv), low, high)
                store_u8x16(codes + column * 16, to_u8x16(add(code, offset)))
        return d, d

    return search
