"""Byte dot products with `sdot` by lane: four products of signed bytes added to an int32 lane.

A register holds 4 rows x 4 columns of a code line; the 4 activations of a line and token are one lane of another, so
nothing is repeated over lanes: 16 bytes are the words of 4 lines (matvec) or of 4 tokens (matmul).
"""

from edgeq.simd import arm, emit
from edgeq.simd.arm import signed
from edgeq.simd.emit import U8X16
from edgeq.simd.intrinsics import SDOT


class NeonDotprod(arm.Arm):
    centred = frozenset({8})
    in_two = True  # 16 registers of codes are too many

    def bias(self, kind):
        return emit.FLOAT_BIAS

    def start(self, b, scalar, near):
        return arm.splat_by_copies(b, scalar, near)

    def dot_lines(self, b, total, lines, words, code_bits):
        parts = emit.quarters(b, total)
        for first in range(0, len(lines), 4):
            activations = emit.load(b, emit.offset(b, words, 4 * first), U8X16, 4)
            for lane, line in enumerate(lines[first : first + 4]):
                codes = [signed(b, part, code_bits) for part in emit.quarters(b, line)]
                parts = [_sdot(b, part, code, activations, lane) for part, code in zip(parts, codes, strict=True)]
            parts = emit.pin(b, parts)
        return emit.join(b, parts)

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start):
        totals = [emit.quarters(b, start(t)) for t in range(tokens)]
        for j in range(count):
            codes = [
                signed(b, emit.load(b, emit.offset(b, lines, 64 * j + 16 * q), U8X16, 16), code_bits) for q in range(4)
            ]
            for t in range(tokens):
                at = j * tokens + t
                activations = emit.load(b, emit.offset(b, words, at // 4 * 16), U8X16, 4)
                totals[t] = [
                    _sdot(b, part, code, activations, at % 4) for part, code in zip(totals[t], codes, strict=True)
                ]
            pinned = emit.pin(b, [part for parts in totals for part in parts])
            totals = [pinned[4 * t : 4 * t + 4] for t in range(tokens)]
        return [emit.join(b, parts) for parts in totals]


def _sdot(b, total, codes, activations, lane):
    return SDOT(b, total, codes, emit.repeat_word(b, activations, lane))


BODY = NeonDotprod()
