"""Byte dot products on 256-bit registers."""

from edgeq.simd import emit
from edgeq.simd.pmaddubsw import Pmaddubsw
from edgeq.simd.pmaddubsw import tile_centre as tile_centre


def _wide_dot(body, b, codes, activations):
    """u8 codes around 128 as signed bytes w: |w| * (sign(w) * x) never saturates, as 2 * 128 * 127 fits int16.

    The result is the dot product of (code - 128): the zero point is inside, see CENTRED.
    """
    signed = b.xor(codes, emit.splat_constant(body.bytes, 128))
    magnitude = emit.call(b, "llvm.abs.v32i8", body.bytes, [signed, emit.FALSE])
    turned = emit.call(b, "llvm.x86.avx2.psign.b", body.bytes, [activations, signed])
    return body.widen(b, body.maddubs(b, magnitude, turned))


_body = Pmaddubsw(32, "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd", _wide_dot)
dot_panels, dot_tile, scale_pairs = _body.dot_panels, _body.dot_tile, _body.scale_pairs
BIAS = 0
CENTRED = frozenset({8})


def lookup(b, table, codes):
    """The byte of `table` (u8x16 constant) for each of 64 bytes 0 to 15."""
    tables = emit.concat(b, table, table)
    halves = [emit.call(b, "llvm.x86.avx2.pshuf.b", _body.bytes, [tables, emit.half(b, codes, i)]) for i in range(2)]
    return emit.concat(b, *halves)
