"""Operations on lines of bytes that are codes: looking up what 16 codes stand for; and scales that are exponents."""

from collections.abc import Sequence

from llvmlite import ir
from numba import types

from edgeq.simd import emit
from edgeq.simd.emit import F32X16, I32X16
from edgeq.simd.isa import Isa
from edgeq.simd.types import f32x16, u8x64
from edgeq.simd.vector import operation


def lookup(isa: Isa, table: Sequence[int]):
    """`looked_up(codes)`: the bytes of `table` (16 of them) that the bytes 0 to 15 of a line stand for."""
    body, entries = isa.body(), list(table)

    @operation(u8x64, u8x64)
    def looked_up(b, codes):
        return body.lookup(b, ir.Constant(emit.U8X16, entries), codes)

    return looked_up


@operation(f32x16, types.int64)
def load_e8m0x16(b, address):
    """16 exponents e as 2^(e - 128), which for 0 and 1 are subnormal."""
    exponents = b.zext(emit.load(b, address, emit.U8X16), I32X16)
    one, few, many = (emit.splat_constant(I32X16, value) for value in (1, 21, 23))
    small, normal = b.shl(b.add(exponents, one), few), b.shl(b.sub(exponents, one), many)
    return b.bitcast(b.select(b.icmp_signed(">", exponents, one), normal, small), F32X16)
