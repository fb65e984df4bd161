"""Byte dot products on 512-bit registers without VNNI."""

from edgeq.simd import emit
from edgeq.simd.pmaddubsw import Pmaddubsw
from edgeq.simd.pmaddubsw import tile_centre as tile_centre

BIAS = 0
TILE_BIAS = emit.FLOAT_BIAS  # where a tile's dots start, if `Codes.short_scales`
CENTRED: frozenset[int] = frozenset()


def _wide_dot(body, b, codes, activations):
    """8-bit codes as two nibbles, each of which fits `pmaddubsw`: low + 16 * high. (AVX-512 has no `psignb`.)"""
    mask = emit.splat_constant(body.bytes, 15)
    low = b.and_(codes, mask)
    shifted = b.lshr(b.bitcast(codes, body.words), emit.splat_constant(body.words, 4))
    high = b.and_(b.bitcast(shifted, body.bytes), mask)
    low_sums = body.widen(b, body.maddubs(b, low, activations))
    high_sums = body.maddwd(b, body.maddubs(b, high, activations), emit.splat_constant(body.words, 16))
    return b.add(low_sums, high_sums)


_body = Pmaddubsw(64, "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512", _wide_dot)
dot_panels, dot_tile, scale_pairs = _body.dot_panels, _body.dot_tile, _body.scale_pairs


def lookup(b, table, codes):
    """The byte of `table` (u8x16 constant) for each of 64 bytes 0 to 15."""
    tables = emit.join(b, [table] * 4)
    return emit.call(b, "llvm.x86.avx512.pshuf.b.512", emit.U8X64, [tables, codes])
