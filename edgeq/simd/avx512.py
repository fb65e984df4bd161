"""Byte dot products on 512-bit registers without VNNI."""

from edgeq.simd import emit
from edgeq.simd.pmaddubsw import Pmaddubsw


class Avx512(Pmaddubsw):
    tile_bias = emit.FLOAT_BIAS

    def wide_dot(self, b, codes, activations):
        """8-bit codes as two nibbles, each of which fits `pmaddubsw`: low + 16 * high. (AVX-512 has no `psignb`.)"""
        mask = emit.splat_constant(self.bytes, 15)
        low = b.and_(codes, mask)
        shifted = b.lshr(b.bitcast(codes, self.words), emit.splat_constant(self.words, 4))
        high = b.and_(b.bitcast(shifted, self.bytes), mask)
        low_sums = self.widen(b, self.maddubs(b, low, activations))
        high_sums = self.maddwd(b, self.maddubs(b, high, activations), emit.splat_constant(self.words, 16))
        return b.add(low_sums, high_sums)


BODY = Avx512(64)
