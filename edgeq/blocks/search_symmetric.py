"""The searches for w = s v, v being what a code stands for: with a scale of each group (Q8_0, Q4_0, Q5_0, IQ4_NL,
TQ2_0, Q2_0, Q1_0) or row (I8_R), with one that is a power of two (MXFP4), or with scales that are signed multiples of
d (Q6_K, Q3_K, IQ4_XS).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgeq.blocks.fields import F32
from edgeq.blocks.search_steps import (
    NEIGHBOURS,
    TINY,
    biased_exponent,
    half,
    inverse_of,
    multiple_of,
    power_of_two,
    quotient,
    round_between,
    total_of,
    weighed,
    where,
)
from edgeq.blocks.table import BlockType

# What is added to the largest magnitude of a code for each candidate step, best around where few codes are left unused;
# of types that `steps` has no good guess of.
_STEPS = {
    "Q5_0": tuple(t / 4 for t in range(-8, 5)),
    "Q8_0": tuple(t / 2 for t in range(-8, 9)),
    "I8_R": tuple(t / 2 for t in range(-8, 9)),  # 3 % less squared error than max / 127; clipping more loses
    "Q6_K": tuple(t / 2 for t in range(-8, 5)),
    "Q3_K": tuple(t / 8 for t in range(-8, 7)),
    "IQ4_NL": tuple(4.0 * t for t in range(-8, 9)),
    "NF4": tuple(t / 32 for t in range(-8, 6)),
    "IQ12_W": tuple(t / 4 for t in range(-8, 7)),
    "IQ3_W": tuple(t / 2 for t in range(-8, 5)),
    "IQ3S_W": tuple(t / 2 for t in range(-8, 5)),
    "NVFP4_W": tuple(t / 512 for t in range(-6, 7)),
    "IQ4_XS": tuple(4.0 * t for t in range(-8, 9)),
    "TQ2_0": tuple(t / 8 for t in range(29)),
    "Q2_0": (*(t / 4 for t in range(7)), *(-t / 4 for t in range(10, 19))),  # the farthest becomes about -1, or about 2
    "Q1_0": (0.0,),  # signs are all there is
}
# Signed codes that are written, if not all: Q8_0 leaves -128 out, as GGUF writers do, and so does I8_R; TQ2_0 leaves
# out 2, which TQ1_0 lacks.
_CODE_RANGE = {"Q8_0": (-127, 127), "I8_R": (-127, 127), "TQ2_0": (-1, 1)}
FACTOR_RANGE = {"i8": (-128, 127), "s6": (-32, 31)}
LEAST_EXPONENT = 3  # of MXFP4's scales: those below are of weights that f32 cannot divide by
EXPONENTS = (0, 1, -1)  # beside that of the largest weight, which are tried


@dataclass(frozen=True)
class Ladder:
    """Values in rising order: the lowest and its code, and for each further one (where it begins to be the nearest,
    how much higher it is, how much higher its code is)."""

    lowest: float
    first_code: float
    rungs: tuple[tuple[float, float, float], ...]


def ladder(values: Sequence[float]) -> Ladder:
    """The ladder of what codes stand for; of two codes for one value the first is written."""
    rising = sorted({float(value): float(code) for code, value in reversed(list(enumerate(values)))}.items())
    rungs = tuple(((low + high) / 2, high - low, b - a) for (low, a), (high, b) in pairwise(rising))
    return Ladder(*rising[0], rungs)


def code_range(bt: BlockType) -> tuple[int, int]:
    """The smallest and the largest signed code that is written of a type without values."""
    return _CODE_RANGE.get(bt.name, (-bt.zero_point, bt.levels - bt.zero_point))


def lowest(bt: BlockType) -> float:
    """The lowest value that a code is written for."""
    return float(min(bt.values)) if bt.values else float(code_range(bt)[0])


def steps(bt: BlockType) -> tuple[float, ...]:
    """What is added to the largest magnitude of a code for each candidate step."""
    size = max(map(abs, bt.values or code_range(bt))) / 32
    return _STEPS.get(bt.name) or tuple(t * size for t in range(-8, 5))


def search_scales(x: F32, bt: BlockType, importance: F32 | None = None) -> tuple[F32, F32 | None, F32]:
    """Scales (f16, f32 or exponents) [groups, lanes] and None, or d f16 [1, lanes] and factors; codes like x.

    Importance is as x is.
    """
    if bt.scales == "e8m0":
        exponent = best_exponent(x, importance, bt)
        return exponent, None, codes_of(x, power_of_two(exponent), bt)
    scale = best_scale(x, importance, bt)
    if bt.scales not in FACTOR_RANGE:
        d = scale if bt.single_scales else half(scale)
        return d, None, codes_of(x, d, bt)
    d, factors = _factors(x, importance, scale, bt)
    return d, factors, codes_of(x, d * factors, bt)


def _nearest(x: F32, bt: BlockType) -> F32:
    """What the code that fits best stands for."""
    if not bt.values:
        return round_between(x, *code_range(bt))
    rungs = ladder(bt.values)
    values = np.full_like(x, rungs.lowest)
    for begin, rise, _ in rungs.rungs:
        values += where(x > np.float32(begin), np.float32(rise), np.float32(0))
    return values


def codes_of(x: F32, scale: F32, bt: BlockType) -> F32:
    if not bt.values:
        return _values(x, scale, bt) + np.float32(bt.zero_point)
    scaled, rungs = x * inverse_of(scale), ladder(bt.values)
    codes = np.full_like(x, rungs.first_code)
    for begin, _, rise in rungs.rungs:
        codes += where(scaled > np.float32(begin), np.float32(rise), np.float32(0))
    return codes


def _values(x: F32, scale: F32, bt: BlockType) -> F32:
    return _nearest(x * inverse_of(scale), bt)


def best_scale(x: F32, importance: F32 | None, bt: BlockType) -> F32:
    """Scale [groups, lanes] of the candidate step with the largest gain, before it is coded.

    In each candidate the entry farthest from zero goes to about the lowest value.
    """
    low, high = x.min(axis=0), x.max(axis=0)
    farthest = where(-low >= high, low, high)
    usable = np.abs(farthest) > np.float32(TINY)
    gain = np.full(x.shape[1:], -1, np.float32)
    scale = np.zeros_like(gain)
    for step in steps(bt):
        inverse = where(usable, np.float32(lowest(bt) - step) / farthest, np.float32(0))
        values = _nearest(x * inverse, bt)
        counted = weighed(values, importance)
        sum_qq, sum_xq = total_of(counted * values), total_of(x * counted)
        fitted = quotient(sum_xq, sum_qq)
        new_gain = fitted * sum_xq
        better = new_gain > gain
        gain, scale = where(better, new_gain, gain), where(better, fitted, scale)
    return scale


def best_exponent(x: F32, importance: F32 | None, bt: BlockType) -> F32:
    """The e [groups, lanes] of the scale 2^(e - 128) with the least error; 0 for groups of zeros."""
    largest = np.abs(x).max(axis=0)
    # 2^(e - 128) times 12, the largest value, is nearest to it from below or above
    middle = np.maximum(biased_exponent(largest) - np.float32(2), np.float32(LEAST_EXPONENT))
    exponent, error = np.zeros_like(middle), np.full_like(middle, np.inf)
    for near in EXPONENTS:
        new = middle + np.float32(near)
        new_error = _error(x, importance, power_of_two(new), bt)
        better = new_error < error
        exponent, error = where(better, new, exponent), where(better, new_error, error)
    return where(largest > 0, exponent, np.float32(0))


def _error(x: F32, importance: F32 | None, scale: F32, bt: BlockType) -> F32:
    residual = scale * _values(x, scale, bt) - x
    return total_of(weighed(residual * residual, importance))


def _factors(x: F32, importance: F32 | None, scale: F32, bt: BlockType) -> tuple[F32, F32]:
    """d [1, lanes] and signed factors [groups, lanes] that code these scales with little error."""
    d = multiple_of(np.abs(scale), FACTOR_RANGE[bt.scales][1])
    factors, error = coded_factors(x, importance, scale, d, bt)
    values = _values(x, d * factors, bt)
    counted = weighed(values, importance)
    aa = total_of(factors * factors * total_of(counted * values))
    ax = total_of(factors * total_of(x * counted))
    new_d = half(np.maximum(quotient(ax, aa), np.float32(0)))
    new_error = _error(x, importance, new_d * factors, bt)
    better = total_of(new_error) < total_of(error)
    return where(better, new_d, d), factors


def coded_factors(x: F32, importance: F32 | None, scale: F32, d: F32, bt: BlockType) -> tuple[F32, F32]:
    """The factors of d near these scales with the least error, and that error, each [groups, lanes]."""
    least, most = FACTOR_RANGE[bt.scales]
    start = round_between(scale * inverse_of(d), least, most)
    factors, error = start, _error(x, importance, d * start, bt)
    for near in NEIGHBOURS:
        factor = round_between(start + np.float32(near), least, most)
        new_error = _error(x, importance, d * factor, bt)
        better = new_error < error
        factors, error = where(better, factor, factors), where(better, new_error, error)
    return factors, error
