"""Byte dot products with `vpdpbusd`: unsigned codes x signed activations, four products added to an int32 lane."""

from edgeq.simd import emit, x86
from edgeq.simd.body import Body
from edgeq.simd.intrinsics import VPDPBUSD


class Avx512Vnni(Body):
    tile_bias = emit.FLOAT_BIAS

    def dot_lines(self, b, total, lines, words, code_bits, apart=4):
        for j, line in enumerate(lines):
            total = VPDPBUSD[64](b, total, line, emit.splat_word(b, emit.offset(b, words, apart * j), 64))
        return total

    def dot_panels(self, b, totals, lines_of, which, words, code_bits, pairs_of=None, tokens=1):
        for i in which:
            places = [emit.offset(b, words, 4 * (2 * i * tokens + t)) for t in range(tokens)]
            for first in range(0, len(totals), tokens):
                lines = lines_of(first // tokens, i)
                for at, place in enumerate(places, first):
                    totals[at] = self.dot_lines(b, totals[at], lines, place, code_bits, 4 * tokens)
            totals = emit.pin(b, totals)
        return totals

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start):
        totals: list = [None] * tokens
        for j in range(count):
            codes = emit.load(b, emit.offset(b, lines, 64 * j), emit.U8X64, 32)
            for t in range(tokens):
                activations = emit.splat_word(b, emit.offset(b, words, 4 * (j * tokens + t)), 64)
                totals[t] = VPDPBUSD[64](b, totals[t] if j else start(t), codes, activations)
            totals = emit.pin(b, totals)
        return totals

    def lookup(self, b, table, codes):
        return x86.lookup(b, table, codes, 64)


BODY = Avx512Vnni()
