"""Lane by lane choices, rounding and narrowing: what searching for scales needs beyond `edgeq.simd.vector`.

Comparisons are ordered: a NaN compares false. `larger` and `smaller` give their second argument then, which is what one
x86 instruction does.
"""

from llvmlite import ir
from numba import types

from edgeq.simd import emit
from edgeq.simd.emit import F32X16, I8, I32X16
from edgeq.simd.types import f32x16, u8x16, u8x64
from edgeq.simd.vector import operation

_HALVES = ir.VectorType(ir.HalfType(), 16)


@operation(f32x16, f32x16, f32x16)
def larger(b, x, y):
    return b.select(b.fcmp_ordered(">", x, y), x, y)


@operation(f32x16, f32x16, f32x16)
def smaller(b, x, y):
    return b.select(b.fcmp_ordered("<", x, y), x, y)


@operation(f32x16, f32x16, f32x16, f32x16, f32x16)
def where_above(b, x, y, then, otherwise):
    """`then` in the lanes where x > y, else `otherwise`."""
    return b.select(b.fcmp_ordered(">", x, y), then, otherwise)


@operation(f32x16, f32x16)
def nearest(b, x):
    """The nearest integer, ties to even."""
    return emit.call(b, "llvm.rint.v16f32", F32X16, [x])


@operation(f32x16, f32x16)
def biased_exponent(b, x):
    """The exponent of lanes >= 0 as their bits have it: 127 for 1."""
    return b.sitofp(b.lshr(b.bitcast(x, I32X16), emit.splat_constant(I32X16, 23)), F32X16)


@operation(f32x16, f32x16)
def power_of_two(b, exponent):
    """2^(e - 128), of integral lanes e from 2 to 255; of 0 something that is not finite."""
    biased = b.sub(b.fptosi(exponent, I32X16), emit.splat_constant(I32X16, 1))
    return b.bitcast(b.shl(biased, emit.splat_constant(I32X16, 23)), F32X16)


@operation(f32x16, f32x16)
def through_f16(b, x):
    """Rounded to f16 and back."""
    return b.fpext(b.fptrunc(x, _HALVES), F32X16)


@operation(u8x16, f32x16)
def to_u8x16(b, x):
    """Integral lanes in [-128, 255] as bytes."""
    return b.trunc(b.fptosi(x, I32X16), ir.VectorType(I8, 16))


@operation(types.void, types.int64, u8x16)
def store_u8x16(b, address, value):
    emit.store(b, address, value)


@operation(u8x64, u8x16, u8x16, u8x16, u8x16)
def interleave_4(b, x0, x1, x2, x3):
    """Bytes x0[0] x1[0] x2[0] x3[0] x0[1] ...: four columns of 16 rows as one code line."""
    together = emit.concat(b, emit.concat(b, x0, x1), emit.concat(b, x2, x3))
    return emit.shuffle(b, together, together, [16 * column + row for row in range(16) for column in range(4)])


@operation(types.void, types.int64, u8x64)
def store_line(b, address, value):
    """64 bytes at any address."""
    emit.store(b, address, value)
