"""The searches for w = s v of 16 rows at a time: the twins of `edgeq.blocks.search_symmetric`."""

from types import SimpleNamespace

from edgeq.blocks.groups import EXPONENTS as EXPONENT_REACH
from edgeq.blocks.groups import FACTORS, STEPS_OF_A_SCALE, step_of
from edgeq.blocks.search_steps import NEIGHBOURS, TINY
from edgeq.blocks.search_symmetric import EXPONENTS, FACTOR_RANGE, LEAST_EXPONENT, code_range, ladder, lowest, steps
from edgeq.blocks.table import BlockType
from edgeq.kernels.search import (
    COLUMNS,
    ROW,
    constant,
    further,
    half,
    inverse,
    multiple_of,
    quotient,
    round_between,
    weighed,
)
from edgeq.simd.choice import (
    biased_exponent,
    larger,
    power_of_two,
    smaller,
    store_u8x16,
    to_u8x16,
    where_above,
)
from edgeq.simd.vector import absolute, add, device, div, load_f32x16, mul, neg, store_f32x16, sub, zero_f32x16

# Rows of 16 f32 in the work space: per scale group its scale or factor, and its error.
SCALES, ERRORS = 0, 16 * ROW
LEAST_SCALE = 2.0**-128  # of MXFP4


@device
def _farthest(x, columns):
    """The weight of each row that is farthest from zero; the lowest one if it ties with the highest."""
    low, high = load_f32x16(x), load_f32x16(x)
    for k in range(1, columns):
        w = load_f32x16(x + k * ROW)
        low, high = smaller(w, low), larger(w, high)
    return where_above(high, neg(low), high, low)


def _rounding(bt: BlockType):
    """`value(t)` and `code(t)` of the code whose value is nearest to t."""
    if bt.values:
        found = ladder(bt.values)
        lowest_value, first_code, rungs = found.lowest, found.first_code, found.rungs

        @device
        def value(t):
            result = constant(lowest_value)
            for begin, rise, _ in rungs:
                result = add(result, where_above(t, constant(begin), constant(rise), zero_f32x16()))
            return result

        @device
        def code(t):
            result = constant(first_code)
            for begin, _, rise in rungs:
                result = add(result, where_above(t, constant(begin), constant(rise), zero_f32x16()))
            return result

        return value, code

    (least, most), zero_point = code_range(bt), bt.zero_point

    @device
    def value(t):
        return round_between(t, constant(least), constant(most))

    @device
    def code(t):
        return add(value(t), constant(zero_point))

    return value, code


def _decoded(bt: BlockType):
    """`decoded(t, code)`: exactly what a code stands for, that of the value nearest to t."""
    zero_point = bt.zero_point
    if not bt.values:

        @device
        def from_code(t, code):
            return sub(code, constant(zero_point))

        return from_code

    rungs = ladder(bt.values).rungs
    rising = sorted(map(float, set(bt.values)))
    lowest_value, higher = rising[0], tuple((rung[0], value) for rung, value in zip(rungs, rising[1:], strict=True))

    @device
    def from_values(t, code):
        result = constant(lowest_value)
        for begin, value in higher:
            result = where_above(t, constant(begin), constant(value), result)
        return result

    return from_values


def _fitting(value):
    """What all searches need of a type's values: `error(x, importance, scale, columns)`,
    `fit_sums(x, importance, inv, columns)`."""

    @device
    def square(w, scale, inv):
        residual = sub(mul(scale, value(mul(w, inv))), w)
        return mul(residual, residual)

    @device
    def error(x, importance, scale, columns):
        inv = inverse(scale)
        total = weighed(square(load_f32x16(x), scale, inv), importance, 0)
        for k in range(1, columns):
            total = add(total, weighed(square(load_f32x16(x + k * ROW), scale, inv), importance, k))
        return total

    @device
    def fit_sums(x, importance, inv, columns):
        """Sums of value squared and of weight times value."""
        w = load_f32x16(x)
        v = value(mul(w, inv))
        counted = weighed(v, importance, 0)
        sum_qq, sum_xq = mul(counted, v), mul(w, counted)
        for k in range(1, columns):
            w = load_f32x16(x + k * ROW)
            v = value(mul(w, inv))
            counted = weighed(v, importance, k)
            sum_qq, sum_xq = add(sum_qq, mul(counted, v)), add(sum_xq, mul(w, counted))
        return sum_qq, sum_xq

    return SimpleNamespace(error=error, fit_sums=fit_sums)


def _make_best(bt: BlockType, fit_sums):
    tried, least = steps(bt), lowest(bt)

    @device
    def best(x, importance, columns):
        """The scale of the candidate step with the largest gain."""
        zero = zero_f32x16()
        farthest = _farthest(x, columns)
        gain, scale = constant(-1.0), zero
        for step in tried:
            inv = div(constant(least - step), farthest)
            inv = where_above(absolute(farthest), constant(TINY), inv, zero)
            sum_qq, sum_xq = fit_sums(x, importance, inv, columns)
            fitted = quotient(sum_xq, sum_qq)
            new_gain = mul(fitted, sum_xq)
            scale = where_above(new_gain, gain, fitted, scale)
            gain = where_above(new_gain, gain, new_gain, gain)
        return scale

    return best


def _make_best_exponent(error):
    @device
    def best(x, importance, columns):
        """The e of the scale 2^(e - 128) with the least error; 0 for zeros."""
        zero = zero_f32x16()
        largest = absolute(load_f32x16(x))
        for k in range(1, columns):
            largest = larger(absolute(load_f32x16(x + k * ROW)), largest)
        middle = larger(sub(biased_exponent(largest), constant(2.0)), constant(LEAST_EXPONENT))
        exponent, least = zero, constant(float("inf"))
        for near in EXPONENTS:
            new = add(middle, constant(near))
            new_error = error(x, importance, power_of_two(new), columns)
            exponent = where_above(least, new_error, new, exponent)
            least = where_above(least, new_error, new_error, least)
        return where_above(largest, zero, exponent, zero)

    return best


def _make_coded(bt: BlockType, error):
    """`coded(x, importance, columns, row, d, inv_d)`: the scale at `row` becomes a factor of d."""
    least, most = FACTOR_RANGE[bt.scales]

    @device
    def coded(x, importance, columns, row, d, inv_d):
        """The best factor near that of the scale; its error is stored, too."""
        start = round_between(mul(load_f32x16(row + SCALES), inv_d), constant(least), constant(most))
        factor, old = start, error(x, importance, mul(d, start), columns)
        for near in NEIGHBOURS:
            other = round_between(add(start, constant(near)), constant(least), constant(most))
            new = error(x, importance, mul(d, other), columns)
            factor = where_above(old, new, other, factor)
            old = where_above(old, new, new, old)
        store_f32x16(row + SCALES, factor)
        store_f32x16(row + ERRORS, old)

    return coded


def _make_factors(bt: BlockType, fitting: SimpleNamespace):
    """`factors(x, importance, count, columns, work) -> d`: the scales in `work` become factors of it."""
    error, fit_sums, coded, most = (
        fitting.error,
        fitting.fit_sums,
        _make_coded(bt, fitting.error),
        FACTOR_RANGE[bt.scales][1],
    )

    @device
    def refit(x, importance, count, columns, work, d):
        """d fitted to factors and codes, where that lowers the error of the super-block."""
        zero = zero_f32x16()
        aa, ax, old, new = zero, zero, zero, zero
        for g in range(count):
            factor = load_f32x16(work + SCALES + g * ROW)
            at, each = x + g * columns * ROW, further(importance, g * columns)
            sum_qq, sum_xq = fit_sums(at, each, inverse(mul(d, factor)), columns)
            aa, ax = add(aa, mul(mul(factor, factor), sum_qq)), add(ax, mul(factor, sum_xq))
            old = add(old, load_f32x16(work + ERRORS + g * ROW))
        new_d = half(larger(quotient(ax, aa), zero))
        for g in range(count):
            scale = mul(new_d, load_f32x16(work + SCALES + g * ROW))
            new = add(new, error(x + g * columns * ROW, further(importance, g * columns), scale, columns))
        return where_above(old, new, new_d, d)

    @device
    def factors(x, importance, count, columns, work):
        largest = zero_f32x16()
        for g in range(count):
            largest = larger(absolute(load_f32x16(work + SCALES + g * ROW)), largest)
        d = multiple_of(largest, float(most))
        inv_d = inverse(d)
        for g in range(count):
            at, each = x + g * columns * ROW, further(importance, g * columns)
            coded(at, each, columns, work + g * ROW, d, inv_d)
        return refit(x, importance, count, columns, work, d)

    return factors


def make(bt: BlockType):
    """`search(x, importance, groups, work, codes, present) -> (d, unused)`; `present` is 1 in rows that exist, else 0.

    Leaves codes as u8 [column][16] in `codes`; in `work` the scale of each group (an f16 as f32, or an exponent), or
    its factor of d, as the header has it.
    """
    value, code = _rounding(bt)
    fitting = _fitting(value)
    exponents, coded, single = bt.scales == "e8m0", bt.scales in FACTOR_RANGE, bt.single_scales
    ragged = bt.scale_group > COLUMNS  # the last group may be shorter
    best = _make_best_exponent(fitting.error) if exponents else _make_best(bt, fitting.fit_sums)
    factors = _make_factors(bt, fitting) if coded else None
    size, bias = bt.scale_group, 32.0 if bt.scales == "s6" else 0.0

    @device
    def search(x, importance, groups, work, codes, present):
        total = groups * COLUMNS
        count = (total + size - 1) // size
        d = constant(1.0)
        for g in range(count):
            each = further(importance, g * size)
            scale = best(x + g * size * ROW, each, min(size, total - g * size) if ragged else size)
            store_f32x16(work + SCALES + g * ROW, scale if coded or exponents or single else half(scale))
        if coded:
            d = factors(x, importance, count, size, work)
        for g in range(count):
            scale = load_f32x16(work + SCALES + g * ROW)
            inv = inverse(power_of_two(scale) if exponents else mul(d, scale))
            for k in range(min(size, total - g * size) if ragged else size):
                column = g * size + k
                found = code(mul(load_f32x16(x + column * ROW), inv))
                store_u8x16(codes + column * 16, to_u8x16(mul(found, present)))
            if bias:
                store_f32x16(work + SCALES + g * ROW, mul(add(scale, constant(bias)), present))
        return d, d

    return search


def make_row(bt: BlockType) -> SimpleNamespace:
    """Of types with one scale for a row: `scale(x, importance, columns)`, that of all its columns, and `codes(x, scale,
    present, codes)`, those of a group of 32 as u8 [32][16]; `present` is 1 in rows that exist, else 0."""
    value, code = _rounding(bt)
    best = _make_best(bt, _fitting(value).fit_sums)

    @device
    def codes_of_group(x, scale, present, codes):
        inv = inverse(scale)
        for k in range(32):
            found = code(mul(load_f32x16(x + k * ROW), inv))
            store_u8x16(codes + k * 16, to_u8x16(mul(found, present)))

    return SimpleNamespace(scale=best, codes=codes_of_group)


def make_group(bt: BlockType) -> SimpleNamespace:
    """What `encode_mins.make_group` says, without mins; of types whose scales are not coded these are the factors."""
    value, code = _rounding(bt)
    decoded, fitting, step = _decoded(bt), _fitting(value), step_of(bt)
    exponents, coded, single = bt.scales == "e8m0", bt.scales in FACTOR_RANGE, bt.single_scales
    find = _make_best_exponent(fitting.error) if exponents else _make_best(bt, fitting.fit_sums)
    code_factor = _make_coded(bt, fitting.error) if coded else None
    least, most = FACTOR_RANGE.get(bt.scales, (0, 0))
    settled = bt.per_row  # the scale of the row, as d
    bias = 32.0 if bt.scales == "s6" else 0.0

    @device
    def best(x, importance, work, group, d, dmin, columns):
        if settled:
            return d, zero_f32x16()
        found, row = find(x, importance, columns), work + group * ROW
        if coded:
            store_f32x16(row + SCALES, found)
            code_factor(x, importance, columns, row, d, inverse(d))
            return load_f32x16(row + SCALES), zero_f32x16()
        return found if exponents or single else half(found), zero_f32x16()

    @device
    def beside(factor, unused, a, b):
        if settled:
            return factor, unused
        if coded:
            return round_between(add(factor, constant(a)), constant(least), constant(most)), unused
        if exponents:  # 0 is of groups of zeros
            exponent = larger(add(factor, constant(a)), constant(LEAST_EXPONENT))
            return where_above(factor, zero_f32x16(), exponent, zero_f32x16()), unused
        scale = mul(factor, constant(1 + a * step))
        return scale if single else half(scale), unused

    @device
    def scale(factor, unused, d, dmin):
        if coded:
            return mul(d, factor), unused
        if exponents:
            return where_above(factor, zero_f32x16(), power_of_two(factor), constant(LEAST_SCALE)), unused
        return factor, unused

    @device
    def keep(work, group, factor, unused):
        store_f32x16(work + SCALES + group * ROW, factor)

    @device
    def kept(work, group):
        return load_f32x16(work + SCALES + group * ROW), zero_f32x16()

    @device
    def finish(work, group, present):
        if bias:
            row = work + SCALES + group * ROW
            store_f32x16(row, mul(add(load_f32x16(row), constant(bias)), present))

    @device
    def column(w, scale, offset, inv):
        scaled = mul(w, inv)
        found = code(scaled)
        return found, mul(scale, decoded(scaled, found))

    reach = (EXPONENT_REACH if exponents else FACTORS if coded else 0 if settled else STEPS_OF_A_SCALE, 0)
    return SimpleNamespace(
        best=best, beside=beside, scale=scale, keep=keep, kept=kept, finish=finish, column=column, reach=reach
    )
