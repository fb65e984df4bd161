"""Byte dot products of x86 before VNNI: `pmaddubsw` adds two products in int16, `pmaddwd` widens to int32.

`pmaddubsw` saturates, so codes decide how many of its results may be added in int16 before widening: the largest
product pair is 2 * (2**bits - 1) * 127, and int16 holds 8 of them for 4-bit codes, 4 for 5 bits, 2 for 6. 8-bit codes
do not fit even once and take the body's own `wide_dot`.
"""

from llvmlite import ir

from edgeq.simd import emit
from edgeq.simd.emit import I8, I16, I32

SUMS_IN_INT16 = {4: 8, 5: 4, 6: 2}


class Pmaddubsw:
    """The dot products for one register width. `wide_dot(b, codes, activations) -> int32 lanes` is exact for u8."""

    def __init__(self, nbytes: int, maddubs: str, maddwd: str, wide_dot):
        self.bytes = ir.VectorType(I8, nbytes)
        self.words = ir.VectorType(I16, nbytes // 2)
        self.ints = ir.VectorType(I32, nbytes // 4)
        self.parts = 64 // nbytes
        self.maddubs_name, self.maddwd_name = maddubs, maddwd
        self.wide_dot = wide_dot

    def maddubs(self, b, codes, activations):
        return emit.call(b, self.maddubs_name, self.words, [codes, activations])

    def maddwd(self, b, x, y):
        return emit.call(b, self.maddwd_name, self.ints, [x, y])

    def widen(self, b, sums, scale=None):
        """Pairs of int16 added into int32 lanes; times `scale`, which costs nothing more."""
        return self.maddwd(b, sums, emit.splat_constant(self.words, 1) if scale is None else scale)

    def scale_pairs(self, b, codes):
        """16 unsigned bytes as what `widen` multiplies with: each twice, as int16, in 64 bytes."""
        zeros = emit.splat_constant(emit.U8X16, 0)
        return emit.shuffle(b, codes, zeros, [at for row in range(16) for at in (row, 16, row, 16)])

    def join(self, b, parts):
        """The register parts of 16 int32 lanes as one vector."""
        return parts[0] if self.parts == 1 else emit.concat(b, *parts)

    def dot_lines(self, b, total, lines, words, code_bits, pairs=None):
        """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line.

        With `pairs` of scales for the 16 rows, the dots are multiplied by them.
        """
        scales = [None] * self.parts
        if pairs is not None:
            parts = [pairs] if self.parts == 1 else [emit.half(b, pairs, part) for part in range(2)]
            scales = [b.bitcast(part, self.words) for part in parts]
        step = min(SUMS_IN_INT16.get(code_bits, 1), len(lines))
        for first in range(0, len(lines), step):
            sums = None
            for j in range(first, first + step):
                dots = self._dots_of_line(b, lines[j], emit.offset(b, words, 4 * j), code_bits)
                sums = dots if sums is None else [b.add(x, y) for x, y in zip(sums, dots, strict=True)]
            if code_bits != 8:
                sums = [self.widen(b, value, scale) for value, scale in zip(sums, scales, strict=True)]
            total = b.add(total, self.join(b, sums))
        return total

    def _dots_of_line(self, b, line, word, code_bits):
        """The parts of one line: int16 sums of two products, or for 8-bit codes int32 sums of four."""
        activations = emit.splat_word(b, word, self.bytes.count)
        parts = [line] if self.parts == 1 else [emit.half(b, line, part) for part in range(2)]
        if code_bits == 8:
            return [self.wide_dot(self, b, part, activations) for part in parts]
        return [self.maddubs(b, part, activations) for part in parts]

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start, pairs=None):
        """The int32x16 dots of `tokens` tokens over `count` code lines at `lines`, added to `start(token)`.

        With scales at the address `pairs`, the dots are multiplied by them.

        Words (4 activations) lie [line][token]. Where int16 sums are widened more than once, one part of the 16 rows
        is done after the other, so that both kinds of sums fit in 16 registers.
        """
        step = min(SUMS_IN_INT16.get(code_bits, count), count)
        every = list(range(self.parts))
        turns = [every] if step == count else [[part] for part in every]
        dots: dict[int, list] = {}
        for parts in turns:
            totals = None
            for first in range(0, count, step):
                sums = self._sum_lines(b, lines, words, range(first, first + step), tokens, code_bits, parts)
                if code_bits != 8:
                    scales = [self._scale_at(b, pairs, part) for part in parts for _ in range(tokens)]
                    sums = [self.widen(b, value, scale) for value, scale in zip(sums, scales, strict=True)]
                totals = sums if totals is None else [b.add(x, y) for x, y in zip(totals, sums, strict=True)]
            for i, part in enumerate(parts):
                dots[part] = totals[i * tokens : (i + 1) * tokens]
        return [b.add(self.join(b, [dots[part][t] for part in every]), start(t)) for t in range(tokens)]

    def _scale_at(self, b, pairs, part):
        return None if pairs is None else emit.load(b, emit.offset(b, pairs, self.bytes.count * part), self.words, 32)

    def _sum_lines(self, b, lines, words, which, tokens, code_bits, parts):
        """Sums over code lines for every part and token, part-major: int16 pairs, or int32 for 8-bit codes."""
        nbytes = self.bytes.count
        sums = None
        for j in which:
            codes = [emit.load(b, emit.offset(b, lines, 64 * j + nbytes * part), self.bytes, 32) for part in parts]
            dots = [[] for _ in parts]
            for t in range(tokens):
                activations = emit.splat_word(b, emit.offset(b, words, 4 * (j * tokens + t)), nbytes)
                for i, code in enumerate(codes):
                    if code_bits == 8:
                        dots[i].append(self.wide_dot(self, b, code, activations))
                    else:
                        dots[i].append(self.maddubs(b, code, activations))
            flat = [dot for part in dots for dot in part]
            sums = emit.pin(b, flat if sums is None else [b.add(x, y) for x, y in zip(sums, flat, strict=True)])
        return sums
