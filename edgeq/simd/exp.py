"""Powers of e and 2 of 16 lanes."""

import math

import numpy as np

from edgeq.simd import emit
from edgeq.simd.emit import F32X16, I32X16
from edgeq.simd.types import f32x16
from edgeq.simd.vector import add, device, div, operation, splat_f32, sub


def _ldexp_two(b, n):
    """2**n for integral f32 lanes n in [-126, 127]: write the exponent bits."""
    biased = b.add(b.fptosi(n, I32X16), emit.splat_constant(I32X16, 127))
    return b.bitcast(b.shl(biased, emit.splat_constant(I32X16, 23)), F32X16)


@operation(f32x16, f32x16)
def exp(b, x):
    """e**x within 2 ulp, 0 below -87.3, inf above 88.7; NaN stays NaN.

    Cody-Waite reduction x = n ln 2 + r, |r| <= ln 2 / 2, then the Taylor polynomial of degree 7 in r (its remainder
    is below 2**-27 there), and 2**n in two halves so that the largest results do not overflow early.
    """
    constant = lambda value: emit.splat_constant(F32X16, value)  # noqa: E731
    low, high = constant(-87.33654022216797), constant(88.72283935546875)
    below, above = b.fcmp_ordered("<", x, low), b.fcmp_ordered(">", x, high)
    clamped = b.select(below, low, b.select(above, high, x))
    n = emit.call(b, "llvm.nearbyint.v16f32", F32X16, [b.fmul(clamped, constant(1.4426950216293335))])
    r = emit.fma(b, n, constant(-0.693145751953125), clamped)
    r = emit.fma(b, n, constant(-1.428606765330187e-06), r)
    p = constant(1.0 / 5040)
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        p = emit.fma(b, p, r, constant(1.0 / factorial))
    first = emit.call(b, "llvm.floor.v16f32", F32X16, [b.fmul(n, constant(0.5))])
    ordered = b.fcmp_ordered("ord", x, x)
    first = b.select(ordered, first, constant(0.0))  # a NaN must not reach the float to int conversion
    second = b.select(ordered, b.fsub(n, first), constant(0.0))
    result = b.fmul(b.fmul(p, _ldexp_two(b, first)), _ldexp_two(b, second))
    result = b.select(below, constant(0.0), result)
    return b.select(above, constant(float("inf")), result)


def _exp2_of_nonpositive(b, x, hi, lo):
    """2**(x * (hi + lo)) for x * (hi + lo) in [-126, 0]; NaN stays NaN.

    The exponent is n + r, |r| <= 1/2: adding 1.5 * 2**23 rounds to the integer n and leaves it in the low bits, from
    where it is moved to the exponent of the Taylor polynomial of degree 6 in r (its remainder is below 2**-22.9).
    """
    constant = lambda value: emit.splat_constant(F32X16, value)  # noqa: E731
    shifted = emit.fma(b, x, constant(hi), constant(12582912.0))
    r = emit.fma(b, x, constant(hi), b.fneg(b.fsub(shifted, constant(12582912.0))))
    if lo:
        r = emit.fma(b, x, constant(lo), r)
    coefficients = [math.log(2) ** k / math.factorial(k) for k in range(7)]
    p = constant(coefficients[6])
    for coefficient in coefficients[5::-1]:
        p = emit.fma(b, p, r, constant(coefficient))
    exponent = b.shl(b.bitcast(shifted, I32X16), emit.splat_constant(I32X16, 23))
    return b.bitcast(b.add(b.bitcast(p, I32X16), exponent), F32X16)


def _at_least(b, x, least):
    """x, or `least` where x is smaller; NaN stays."""
    least = emit.splat_constant(F32X16, least)
    return b.select(b.fcmp_ordered("<", x, least), least, x)


@operation(f32x16, f32x16)
def exp2_of_nonpositive(b, x):
    """2**x for x <= 0, within 2 ulp and at least 2**-126; NaN stays NaN. All that a softmax needs."""
    return _exp2_of_nonpositive(b, _at_least(b, x, -126.0), 1.0, 0.0)


@operation(f32x16, f32x16)
def exp_of_nonpositive(b, x):
    """e**x for x <= 0, within 2 ulp, 0 below -87.33; NaN stays NaN."""
    least = emit.splat_constant(F32X16, -87.33)
    result = _exp2_of_nonpositive(b, _at_least(b, x, -87.33), 1.4426950216293335, 1.925963e-08)
    return b.select(b.fcmp_ordered("<", x, least), emit.splat_constant(F32X16, 0.0), result)


@device
def tanh(x):
    """1 - 2 / (e^2x + 1); within 1e-7, both ends included."""
    one = splat_f32(np.float32(1.0))
    grown = add(exp(add(x, x)), one)
    return sub(one, div(splat_f32(np.float32(2.0)), grown))
