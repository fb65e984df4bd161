"""The search for w = d q + m (Q4_1, Q5_1), one super-block of 16 rows at a time."""

from types import SimpleNamespace

from edgeq.blocks.groups import STEP_OF_AN_OFFSET, STEPS_OF_A_SCALE, step_of
from edgeq.blocks.search_offsets import OFFSET_ROUNDS, OFFSET_STEPS
from edgeq.blocks.search_steps import TINY
from edgeq.blocks.table import BlockType
from edgeq.kernels.search import (
    COLUMNS,
    GROUP,
    ROW,
    constant,
    count_of,
    further,
    half,
    inverse,
    quotient,
    round_between,
    weighed,
)
from edgeq.simd.choice import larger, nearest, smaller, store_u8x16, to_u8x16, where_above
from edgeq.simd.vector import add, device, div, load_f32x16, mul, store_f32x16, sub, zero_f32x16

# Rows of 16 f32 in the work space: per group its scale and its min.
SCALES, MINS = 0, 8 * ROW


@device
def _fit(n, total, sum_q, sum_qq, sum_xq):
    """(gain, scale, offset) of the least-squares fit above ~ scale * codes + offset."""
    scale = quotient(sub(mul(n, sum_xq), mul(sum_q, total)), sub(mul(n, sum_qq), mul(sum_q, sum_q)))
    offset = div(sub(total, mul(scale, sum_q)), n)
    return add(mul(scale, sum_xq), mul(offset, total)), scale, offset


@device
def _first_guess(x, importance, n, low, span, levels):
    """Scale and offset from `low` of the candidate step with the largest gain."""
    zero, top = zero_f32x16(), constant(levels)
    total = weighed(sub(load_f32x16(x), low), importance, 0)
    for k in range(1, COLUMNS):
        total = add(total, weighed(sub(load_f32x16(x + k * ROW), low), importance, k))
    best_gain, best_scale, best_offset = constant(-1.0), zero, zero
    for step in OFFSET_STEPS:
        inv = where_above(span, constant(TINY), div(constant(levels + step), span), zero)
        w = sub(load_f32x16(x), low)
        q = smaller(nearest(mul(w, inv)), top)
        sum_q = weighed(q, importance, 0)
        sum_qq, sum_xq = mul(sum_q, q), mul(w, sum_q)
        for k in range(1, COLUMNS):
            w = sub(load_f32x16(x + k * ROW), low)
            q = smaller(nearest(mul(w, inv)), top)
            counted = weighed(q, importance, k)
            sum_q, sum_qq, sum_xq = add(sum_q, counted), add(sum_qq, mul(counted, q)), add(sum_xq, mul(w, counted))
        gain, scale, offset = _fit(n, total, sum_q, sum_qq, sum_xq)
        best_scale = where_above(gain, best_gain, scale, best_scale)
        best_offset = where_above(gain, best_gain, offset, best_offset)
        best_gain = where_above(gain, best_gain, gain, best_gain)
    return best_scale, best_offset


@device
def _code(w, m, inv, top):
    return round_between(mul(sub(w, m), inv), zero_f32x16(), top)


@device
def _square(w, d, m, inv, top):
    residual = sub(add(mul(d, _code(w, m, inv, top)), m), w)
    return mul(residual, residual)


@device
def _error(x, importance, d, m, top):
    inv = inverse(d)
    error = weighed(_square(load_f32x16(x), d, m, inv, top), importance, 0)
    for k in range(1, COLUMNS):
        error = add(error, weighed(_square(load_f32x16(x + k * ROW), d, m, inv, top), importance, k))
    return error


@device
def _refit(x, importance, n, low, d, m, top):
    """d and m fitted to the codes that the given ones make."""
    inv = inverse(d)
    w = load_f32x16(x)
    q, above = _code(w, m, inv, top), sub(w, low)
    total, sum_q = weighed(above, importance, 0), weighed(q, importance, 0)
    sum_qq, sum_xq = mul(sum_q, q), mul(above, sum_q)
    for k in range(1, COLUMNS):
        w = load_f32x16(x + k * ROW)
        q, above = _code(w, m, inv, top), sub(w, low)
        counted = weighed(q, importance, k)
        total, sum_q = add(total, weighed(above, importance, k)), add(sum_q, counted)
        sum_qq, sum_xq = add(sum_qq, mul(counted, q)), add(sum_xq, mul(above, counted))
    _, scale, offset = _fit(n, total, sum_q, sum_qq, sum_xq)
    return half(scale), half(add(low, offset))


@device
def _scales(x, importance, levels):
    """d and m of a group."""
    n, top, low, high = count_of(importance, COLUMNS), constant(levels), load_f32x16(x), load_f32x16(x)
    for k in range(1, COLUMNS):
        w = load_f32x16(x + k * ROW)
        low, high = smaller(w, low), larger(w, high)
    scale, above = _first_guess(x, importance, n, low, sub(high, low), levels)
    d, m = half(scale), half(add(low, above))
    error = _error(x, importance, d, m, top)
    for _ in range(OFFSET_ROUNDS):
        new_d, new_m = _refit(x, importance, n, low, d, m, top)
        new_error = _error(x, importance, new_d, new_m, top)
        d, m = where_above(error, new_error, new_d, d), where_above(error, new_error, new_m, m)
        error = where_above(error, new_error, new_error, error)
    return d, m


def make(levels: int):
    """`search(x, importance, groups, work, codes, present)` leaves u8 [column][16] in `codes`, d and m of each group in
    `work`."""

    @device
    def search(x, importance, groups, work, codes, present):
        top = constant(levels)
        for g in range(groups):
            start = x + g * GROUP
            d, m = _scales(start, further(importance, g * COLUMNS), levels)
            store_f32x16(work + SCALES + g * ROW, d)
            store_f32x16(work + MINS + g * ROW, m)
            inv = inverse(d)
            for k in range(COLUMNS):
                code = _code(load_f32x16(start + k * ROW), m, inv, top)
                store_u8x16(codes + (g * COLUMNS + k) * 16, to_u8x16(mul(code, present)))
        return present, present

    return search


def make_group(bt: BlockType) -> SimpleNamespace:
    """What `encode_mins.make_group` says, of a type whose groups have d and m of their own: these are the factors."""
    levels, step = bt.levels, step_of(bt)

    @device
    def best(x, importance, work, group, d, dmin, columns):
        return _scales(x, importance, levels)

    @device
    def beside(d, m, a, b):
        return half(mul(d, constant(1 + a * step))), half(add(m, mul(d, constant(b * STEP_OF_AN_OFFSET))))

    @device
    def scale(factor, factor_min, d, dmin):
        return factor, factor_min

    @device
    def keep(work, group, d, m):
        store_f32x16(work + SCALES + group * ROW, d)
        store_f32x16(work + MINS + group * ROW, m)

    @device
    def kept(work, group):
        return load_f32x16(work + SCALES + group * ROW), load_f32x16(work + MINS + group * ROW)

    @device
    def finish(work, group, present):
        pass

    @device
    def column(w, d, m, inv):
        code = _code(w, m, inv, constant(levels))
        return code, add(mul(d, code), m)

    reach = (STEPS_OF_A_SCALE, STEPS_OF_A_SCALE)
    return SimpleNamespace(
        best=best, beside=beside, scale=scale, keep=keep, kept=kept, finish=finish, column=column, reach=reach
    )
