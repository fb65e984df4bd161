"""Byte dot products on 256-bit registers."""

from edgeq.simd import emit
from edgeq.simd.intrinsics import PSIGNB
from edgeq.simd.pmaddubsw import Pmaddubsw


class Avx2(Pmaddubsw):
    centred = frozenset({8})

    def wide_dot(self, b, codes, activations):
        """u8 codes around 128 as signed bytes w: |w| * (sign(w) * x) never saturates, as 2 * 128 * 127 fits int16.

        The result is the dot product of (code - 128): the zero point is inside, see `centred`.
        """
        signed = b.xor(codes, emit.splat_constant(self.bytes, 128))
        magnitude = emit.call(b, "llvm.abs.v32i8", self.bytes, [signed, emit.FALSE])
        return self.widen(b, self.maddubs(b, magnitude, PSIGNB[32](b, activations, signed)))


BODY = Avx2(32)
