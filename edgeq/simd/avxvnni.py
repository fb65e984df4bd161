"""Byte dot products with `vpdpbusd` on 256-bit registers: laptops since Alder Lake, which have no AVX-512."""

from llvmlite import ir

from edgeq.simd import emit, x86
from edgeq.simd.body import Body
from edgeq.simd.emit import I8
from edgeq.simd.intrinsics import VPDPBUSD

_BYTES = ir.VectorType(I8, 32)


class AvxVnni(Body):
    tile_bias = emit.FLOAT_BIAS

    def dot_lines(self, b, total, lines, words, code_bits, apart=4):
        sums = [emit.half(b, total, part) for part in range(2)]
        for j, line in enumerate(lines):
            activations = emit.splat_word(b, emit.offset(b, words, apart * j), 32)
            sums = [VPDPBUSD[32](b, sums[part], emit.half(b, line, part), activations) for part in range(2)]
        return emit.concat(b, *sums)

    def dot_panels(self, b, totals, lines_of, which, words, code_bits, pairs_of=None, tokens=1):
        for i in which:
            places = [emit.offset(b, words, 4 * (2 * i * tokens + t)) for t in range(tokens)]
            for first in range(0, len(totals), tokens):
                lines, mine = lines_of(first // tokens, i), totals[first : first + tokens]
                mine = [
                    self.dot_lines(b, total, lines, at, code_bits, 4 * tokens)
                    for total, at in zip(mine, places, strict=True)
                ]
                parts = emit.pin(b, [emit.half(b, total, part) for total in mine for part in range(2)])
                totals[first : first + tokens] = [emit.concat(b, *parts[2 * t : 2 * t + 2]) for t in range(tokens)]
        return totals

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start):
        sums = [emit.half(b, total, part) for total in map(start, range(tokens)) for part in range(2)]
        for j in range(count):
            codes = [emit.load(b, emit.offset(b, lines, 64 * j + 32 * part), _BYTES, 32) for part in range(2)]
            for t in range(tokens):
                activations = emit.splat_word(b, emit.offset(b, words, 4 * (j * tokens + t)), 32)
                for part in range(2):
                    sums[2 * t + part] = VPDPBUSD[32](b, sums[2 * t + part], codes[part], activations)
            sums = emit.pin(b, sums)
        return [emit.concat(b, *sums[2 * t : 2 * t + 2]) for t in range(tokens)]

    def lookup(self, b, table, codes):
        return x86.lookup(b, table, codes, 32)


BODY = AvxVnni()
