"""The search for w = s q - m (Q2_K, Q4_K, Q5_K), one super-block of 16 rows at a time."""

from types import SimpleNamespace

from edgeq.blocks.groups import FACTORS_WITH_MIN
from edgeq.blocks.search_mins import MIN_ROUNDS, MIN_STEPS, MOST
from edgeq.blocks.search_steps import NEIGHBOURS, TINY
from edgeq.blocks.table import BlockType
from edgeq.kernels.search import (
    ROW,
    constant,
    count_of,
    further,
    half,
    inverse,
    multiple_of,
    quotient,
    round_between,
    weighed,
)
from edgeq.simd.choice import larger, nearest, smaller, store_u8x16, to_u8x16, where_above
from edgeq.simd.vector import add, device, div, load_f32x16, mul, neg, store_f32x16, sub, zero_f32x16

# Rows of 16 f32 in the work space: per group its scale factor, min factor, error and sum of weights.
SCALES, MINS, ERRORS, TOTALS = 0, 16 * ROW, 32 * ROW, 48 * ROW


@device
def _fit(total, sum_q, sum_qq, sum_xq, n):
    """(gain, scale, offset) of the least-squares fit x ~ scale * codes + offset with offset <= 0."""
    zero = zero_f32x16()
    determinant = sub(mul(n, sum_qq), mul(sum_q, sum_q))
    scale = quotient(sub(mul(n, sum_xq), mul(sum_q, total)), determinant)
    offset = div(sub(total, mul(scale, sum_q)), n)
    scale = where_above(offset, zero, quotient(sum_xq, sum_qq), scale)
    offset = where_above(offset, zero, zero, offset)
    return add(mul(scale, sum_xq), mul(offset, total)), scale, offset


@device
def _first_guess(x, importance, work, group, levels, steps, columns):
    """Store scale, min and sum of weights of a group: those of the candidate step with the largest gain."""
    zero, top = zero_f32x16(), constant(levels)
    n, low, high = count_of(importance, columns), load_f32x16(x), load_f32x16(x)
    total = weighed(low, importance, 0)
    for k in range(1, columns):
        w = load_f32x16(x + k * ROW)
        low, high, total = smaller(w, low), larger(w, high), add(total, weighed(w, importance, k))
    low = smaller(low, zero)
    span = sub(high, low)
    best_gain, best_scale, best_offset = constant(-1.0), zero, zero
    for step in steps:
        inv = where_above(span, constant(TINY), div(constant(levels + step), span), zero)
        w = load_f32x16(x)
        q = smaller(nearest(mul(sub(w, low), inv)), top)
        sum_q = weighed(q, importance, 0)
        sum_qq, sum_xq = mul(sum_q, q), mul(w, sum_q)
        for k in range(1, columns):
            w = load_f32x16(x + k * ROW)
            q = smaller(nearest(mul(sub(w, low), inv)), top)
            counted = weighed(q, importance, k)
            sum_q, sum_qq, sum_xq = add(sum_q, counted), add(sum_qq, mul(counted, q)), add(sum_xq, mul(w, counted))
        gain, scale, offset = _fit(total, sum_q, sum_qq, sum_xq, n)
        best_scale = where_above(gain, best_gain, scale, best_scale)
        best_offset = where_above(gain, best_gain, offset, best_offset)
        best_gain = where_above(gain, best_gain, gain, best_gain)
    store_f32x16(work + SCALES + group * ROW, larger(best_scale, zero))
    store_f32x16(work + MINS + group * ROW, neg(best_offset))
    store_f32x16(work + TOTALS + group * ROW, total)


@device
def _make_factors(work, group, inv_d, inv_dmin, most):
    """A group's scale and min become multiples of d and dmin."""
    for row, inv in ((work + SCALES + group * ROW, inv_d), (work + MINS + group * ROW, inv_dmin)):
        store_f32x16(row, round_between(mul(load_f32x16(row), inv), zero_f32x16(), most))


@device
def _code(w, minimum, inv, top):
    return round_between(mul(add(w, minimum), inv), zero_f32x16(), top)


@device
def _square(w, scale, minimum, inv, top):
    """Squared difference of a weight and what it decodes to."""
    residual = sub(sub(mul(scale, _code(w, minimum, inv, top)), minimum), w)
    return mul(residual, residual)


@device
def _error(x, importance, scale, minimum, top, columns):
    inv = inverse(scale)
    error = weighed(_square(load_f32x16(x), scale, minimum, inv, top), importance, 0)
    for k in range(1, columns):
        square = _square(load_f32x16(x + k * ROW), scale, minimum, inv, top)
        error = add(error, weighed(square, importance, k))
    return error


@device
def _errors_of_3(x, importance, scale, inv, first, second, third, top, columns):
    """Errors of three mins with one scale, in one pass."""
    w = load_f32x16(x)
    error_1 = weighed(_square(w, scale, first, inv, top), importance, 0)
    error_2 = weighed(_square(w, scale, second, inv, top), importance, 0)
    error_3 = weighed(_square(w, scale, third, inv, top), importance, 0)
    for k in range(1, columns):
        w = load_f32x16(x + k * ROW)
        error_1 = add(error_1, weighed(_square(w, scale, first, inv, top), importance, k))
        error_2 = add(error_2, weighed(_square(w, scale, second, inv, top), importance, k))
        error_3 = add(error_3, weighed(_square(w, scale, third, inv, top), importance, k))
    return error_1, error_2, error_3


@device
def _neighbours(x, importance, work, group, d, dmin, top, most, columns):
    """Replace a group's factors by the best near them, and store their error."""
    zero = zero_f32x16()
    start, start_min = load_f32x16(work + SCALES + group * ROW), load_f32x16(work + MINS + group * ROW)
    total = load_f32x16(work + TOTALS + group * ROW)
    minimum, inv_dmin = mul(dmin, start_min), inverse(dmin)
    best_scale, best_min = start, start_min
    best, n = _error(x, importance, mul(d, start), minimum, top, columns), count_of(importance, columns)
    for near in NEIGHBOURS:
        factor = round_between(add(start, constant(near)), zero, most)
        scale = mul(d, factor)
        inv = inverse(scale)
        sum_q = weighed(_code(load_f32x16(x), minimum, inv, top), importance, 0)
        for k in range(1, columns):
            sum_q = add(sum_q, weighed(_code(load_f32x16(x + k * ROW), minimum, inv, top), importance, k))
        fitted = div(sub(mul(scale, sum_q), total), n)
        middle = round_between(mul(fitted, inv_dmin), zero, most)
        below = round_between(add(middle, constant(-1.0)), zero, most)
        above = round_between(add(middle, constant(1.0)), zero, most)
        m_1, m_2, m_3 = mul(dmin, below), mul(dmin, middle), mul(dmin, above)
        errors = _errors_of_3(x, importance, scale, inv, m_1, m_2, m_3, top, columns)
        for error, factor_min in zip(errors, (below, middle, above)):  # noqa: B905 - Numba's zip has no strict
            best_scale = where_above(best, error, factor, best_scale)
            best_min = where_above(best, error, factor_min, best_min)
            best = where_above(best, error, error, best)
    store_f32x16(work + SCALES + group * ROW, best_scale)
    store_f32x16(work + MINS + group * ROW, best_min)
    store_f32x16(work + ERRORS + group * ROW, best)


@device
def _group_sums(x, importance, work, group, d, dmin, top, columns):
    """The five products of a group that fitting d and dmin needs."""
    a, b = load_f32x16(work + SCALES + group * ROW), load_f32x16(work + MINS + group * ROW)
    inv, minimum = inverse(mul(d, a)), mul(dmin, b)
    w = load_f32x16(x)
    q = _code(w, minimum, inv, top)
    sum_q = weighed(q, importance, 0)
    sum_qq, sum_xq = mul(sum_q, q), mul(w, sum_q)
    for k in range(1, columns):
        w = load_f32x16(x + k * ROW)
        q = _code(w, minimum, inv, top)
        counted = weighed(q, importance, k)
        sum_q, sum_qq, sum_xq = add(sum_q, counted), add(sum_qq, mul(counted, q)), add(sum_xq, mul(w, counted))
    n = count_of(importance, columns)
    aa, ab, bb = mul(mul(a, a), sum_qq), mul(mul(a, b), sum_q), mul(mul(b, b), n)
    return aa, ab, bb, mul(a, sum_xq), mul(b, load_f32x16(work + TOTALS + group * ROW))


@device
def _refit(x, importance, work, groups, d, dmin, top, columns):
    """d and dmin fitted to factors and codes by least squares, where that lowers the error."""
    zero = zero_f32x16()
    aa, ab, bb, ax, bx = _group_sums(x, importance, work, 0, d, dmin, top, columns)
    old = load_f32x16(work + ERRORS)
    for g in range(1, groups):
        at, each = x + g * columns * ROW, further(importance, g * columns)
        sums = _group_sums(at, each, work, g, d, dmin, top, columns)
        aa, ab, bb, ax, bx = (
            add(aa, sums[0]), add(ab, sums[1]), add(bb, sums[2]), add(ax, sums[3]), add(bx, sums[4]),
        )  # fmt: skip
        old = add(old, load_f32x16(work + ERRORS + g * ROW))
    determinant = sub(mul(aa, bb), mul(ab, ab))
    both = div(sub(mul(ax, bb), mul(ab, bx)), determinant)
    new_d = half(larger(where_above(determinant, zero, both, quotient(ax, aa)), zero))
    new_dmin = half(larger(quotient(sub(mul(ab, ax), mul(aa, bx)), determinant), zero))
    new = _error_of(x, importance, work, 0, new_d, new_dmin, top, columns)
    for g in range(1, groups):
        at, each = x + g * columns * ROW, further(importance, g * columns)
        new = add(new, _error_of(at, each, work, g, new_d, new_dmin, top, columns))
    return where_above(old, new, new_d, d), where_above(old, new, new_dmin, dmin)


@device
def _error_of(x, importance, work, group, d, dmin, top, columns):
    scale = mul(d, load_f32x16(work + SCALES + group * ROW))
    return _error(x, importance, scale, mul(dmin, load_f32x16(work + MINS + group * ROW)), top, columns)


@device
def _largest(rows, groups):
    found = load_f32x16(rows)
    for g in range(1, groups):
        found = larger(load_f32x16(rows + g * ROW), found)
    return found


def make(bt: BlockType):
    """`search(x, importance, groups, work, codes, present) -> (d, dmin)`; `present` is 1 in rows that exist, else 0.

    Leaves codes as u8 [column][16] in `codes`, factors in `work`.
    """
    levels, largest, steps = bt.levels, float(MOST[bt.scales]), MIN_STEPS[bt.bits]
    columns = bt.scale_group
    per_group, size = 32 // columns, columns * ROW

    @device
    def search(x, importance, groups, work, codes, present):
        most, top = constant(largest), constant(levels)
        count = groups * per_group
        for g in range(count):
            _first_guess(x + g * size, further(importance, g * columns), work, g, levels, steps, columns)
        d = multiple_of(_largest(work + SCALES, count), largest)
        dmin = multiple_of(_largest(work + MINS, count), largest)
        inv_d, inv_dmin = inverse(d), inverse(dmin)
        for g in range(count):
            _make_factors(work, g, inv_d, inv_dmin, most)
        for _ in range(MIN_ROUNDS):
            for g in range(count):
                _neighbours(x + g * size, further(importance, g * columns), work, g, d, dmin, top, most, columns)
            d, dmin = _refit(x, importance, work, count, d, dmin, top, columns)
        for g in range(count):
            inv = inverse(mul(d, load_f32x16(work + SCALES + g * ROW)))
            minimum = mul(dmin, load_f32x16(work + MINS + g * ROW))
            for k in range(columns):
                column = g * columns + k
                code = _code(load_f32x16(x + column * ROW), minimum, inv, top)
                store_u8x16(codes + column * 16, to_u8x16(mul(code, present)))
        return d, dmin

    return search


def make_group(bt: BlockType) -> SimpleNamespace:
    """What `edgeq.kernels.mend` needs: the parts of the search, of one group whose d and dmin are settled.

    best(x, importance, work, group, d, dmin, columns) -> (factor, min's factor), found in `work`
    beside(factor, factor_min, a, b) -> those so many steps on; `reach`: how many are tried to either side
    scale(factor, factor_min, d, dmin) -> (scale, min)
    keep(work, group, factor, factor_min) leaves them in `work`, where kept(work, group) finds them
    finish(work, group, present) makes of what is kept what the header has
    column(w, scale, min, 1 / scale) -> (code, what it decodes to)
    """
    levels, largest, steps = bt.levels, float(MOST[bt.scales]), MIN_STEPS[bt.bits]
    size = bt.scale_group

    @device
    def best(x, importance, work, group, d, dmin, columns):
        most, top = constant(largest), constant(levels)
        _first_guess(x, importance, work, group, levels, steps, size)
        _make_factors(work, group, inverse(d), inverse(dmin), most)
        for _ in range(MIN_ROUNDS):
            _neighbours(x, importance, work, group, d, dmin, top, most, size)
        return load_f32x16(work + SCALES + group * ROW), load_f32x16(work + MINS + group * ROW)

    @device
    def beside(factor, factor_min, a, b):
        zero, most = zero_f32x16(), constant(largest)
        factor, factor_min = add(factor, constant(a)), add(factor_min, constant(b))
        return round_between(factor, zero, most), round_between(factor_min, zero, most)

    @device
    def scale(factor, factor_min, d, dmin):
        return mul(d, factor), mul(dmin, factor_min)

    @device
    def keep(work, group, factor, factor_min):
        store_f32x16(work + SCALES + group * ROW, factor)
        store_f32x16(work + MINS + group * ROW, factor_min)

    @device
    def kept(work, group):
        return load_f32x16(work + SCALES + group * ROW), load_f32x16(work + MINS + group * ROW)

    @device
    def finish(work, group, present):
        pass

    @device
    def column(w, scale, minimum, inv):
        code = _code(w, minimum, inv, constant(levels))
        return code, sub(mul(scale, code), minimum)

    reach = (FACTORS_WITH_MIN, FACTORS_WITH_MIN)
    return SimpleNamespace(
        best=best, beside=beside, scale=scale, keep=keep, kept=kept, finish=finish, column=column, reach=reach
    )
