"""Byte dot products of x86 before VNNI: `pmaddubsw` adds two products in int16, `pmaddwd` widens to int32.

`pmaddubsw` saturates, so codes decide how many of its results may be added in int16 before widening: the largest
product pair is 2 * (2**bits - 1) * 127, and int16 holds 8 of them for 4-bit codes, 4 for 5 bits, 2 for 6. 8-bit codes
do not fit even once and take the body's own `wide_dot`.

In a tile, 6-bit codes are centred: int16 sums begin with -32 times those of the activations. Then twice as many fit
(what comes between may wrap around; they end within 4 * 2 * 32 * 127 = 32512, as activations are never -128), and
their scales multiply them as they are widened.
"""

from abc import abstractmethod

from llvmlite import ir

from edgeq.simd import emit, x86
from edgeq.simd.body import Body
from edgeq.simd.emit import I8, I16, I32
from edgeq.simd.intrinsics import PMADDUBSW, PMADDWD

SUMS_IN_INT16 = {4: 8, 5: 4, 6: 2}


def _add(b, several, others):
    return [b.add(x, y) for x, y in zip(several, others, strict=True)]


class Pmaddubsw(Body):
    """The dot products for registers of `nbytes`."""

    def __init__(self, nbytes: int):
        self.bytes = ir.VectorType(I8, nbytes)
        self.words = ir.VectorType(I16, nbytes // 2)
        self.ints = ir.VectorType(I32, nbytes // 4)
        self.parts = 64 // nbytes

    @abstractmethod
    def wide_dot(self, b, codes, activations):
        """Int32 lanes of four products each of a register of u8 codes and one of activations, exactly."""

    def scales_integers(self, kind):
        return kind.coded and kind.zero_point == 0 and kind.bits < 8

    def tile_centre(self, kind):
        """It pays where few sums fit, and scales are integers."""
        return kind.zero_point if kind.bits == 6 and kind.coded else 0

    def lookup(self, b, table, codes):
        return x86.lookup(b, table, codes, self.bytes.count)

    def maddubs(self, b, codes, activations):
        return PMADDUBSW[self.bytes.count](b, codes, activations)

    def maddwd(self, b, x, y):
        return PMADDWD[self.bytes.count](b, x, y)

    def widen(self, b, sums, scale=None):
        """Pairs of int16 added into int32 lanes; times `scale`, which costs nothing more."""
        return self.maddwd(b, sums, emit.splat_constant(self.words, 1) if scale is None else scale)

    def scale_pairs(self, b, codes, signed):
        """What `widen` multiplies with: each twice, as int16."""
        if signed:
            fours = emit.shuffle(b, codes, codes, [row for row in range(16) for _ in range(4)])
            words = b.bitcast(fours, ir.VectorType(I16, 32))
            return b.bitcast(b.ashr(words, emit.splat_constant(words.type, 8)), emit.U8X64)
        zeros = emit.splat_constant(emit.U8X16, 0)
        return emit.shuffle(b, codes, zeros, [at for row in range(16) for at in (row, 16, row, 16)])

    def join(self, b, parts):
        """The register parts of 16 int32 lanes as one vector."""
        return parts[0] if self.parts == 1 else emit.concat(b, *parts)

    def dot_lines(self, b, total, lines, words, code_bits):
        pairs = range(len(lines) // 2)
        return self.dot_panels(b, [total], lambda panel, i: lines[2 * i : 2 * i + 2], pairs, words, code_bits)[0]

    def dot_panels(self, b, totals, lines_of, which, words, code_bits, pairs_of=None, tokens=1):
        """Panel by panel for each pair of lines, which share what is loaded of the activations; pinned, else LLVM mixes
        panels and spills."""
        step = max(1, min(SUMS_IN_INT16.get(code_bits, 1) // 2, len(which)))
        sums: list = [None] * len(totals)
        for n, i in enumerate(which):
            first, last = n % step == 0, n % step == step - 1
            words_of = [emit.offset(b, words, 4 * (2 * i * tokens + t)) for t in range(tokens)]
            activations = [
                [emit.splat_word(b, emit.offset(b, at, 4 * tokens * j), self.bytes.count) for j in range(2)]
                for at in words_of
            ]
            for panel in range(len(totals) // tokens):
                lines, mine = lines_of(panel, i), range(panel * tokens, (panel + 1) * tokens)
                dots = [
                    self._dots_of_pair(b, lines, each, None if first else sums[at], code_bits)
                    for at, each in zip(mine, activations, strict=True)
                ]
                if last and code_bits != 8:
                    scales = [None] * self.parts if pairs_of is None else self._parts(b, pairs_of(panel))
                    dots = [[self.widen(b, *both) for both in zip(each, scales, strict=True)] for each in dots]
                if last:
                    dots = [_add(b, each, self._halves(b, totals[at])) for at, each in zip(mine, dots, strict=True)]
                pinned = emit.pin(b, [part for each in dots for part in each])
                for t, at in enumerate(mine):
                    sums[at] = pinned[t * self.parts : (t + 1) * self.parts]
                    if last:
                        totals[at] = self.join(b, sums[at])
        return totals

    def _dots_of_pair(self, b, lines, activations, so_far, code_bits):
        """The parts of two lines, added up; to `so_far`, if there is something."""
        low, high = (self._dots_of_line(b, *both, code_bits) for both in zip(lines, activations, strict=True))
        return _add(b, low if so_far is None else _add(b, so_far, low), high)

    def _halves(self, b, value):
        """A vector of 64 bytes in registers: the inverse of `join`."""
        return [value] if self.parts == 1 else [emit.half(b, value, part) for part in range(2)]

    def _parts(self, b, pairs):
        return [b.bitcast(part, self.words) for part in self._halves(b, pairs)]

    def _dots_of_line(self, b, line, activations, code_bits):
        """The parts of one line: int16 sums of two products, or for 8-bit codes int32 sums of four."""
        parts = self._halves(b, line)
        if code_bits == 8:
            return [self.wide_dot(b, part, activations) for part in parts]
        return [self.maddubs(b, part, activations) for part in parts]

    def _begin(self, b, words, tokens, count, zero_point):
        """`begin(token)`: where the int16 sums of `count` lines begin, whose activations are at `words`."""
        if not zero_point:
            return lambda t: None
        size = 4 * tokens
        bytes_, pairs = ir.VectorType(I8, size), ir.VectorType(I16, size // 2)
        taken = emit.splat_constant(pairs, 0)
        for line in range(count):
            activations = emit.load(b, emit.offset(b, words, line * size), bytes_, 4)
            taken = b.sub(taken, PMADDUBSW[size](b, emit.splat_constant(bytes_, zero_point), activations))
        address = emit.conceal(b, emit.in_memory(b, taken), "r")
        return lambda t: b.bitcast(emit.splat_word(b, emit.offset(b, address, 4 * t), self.bytes.count), self.words)

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start, pairs=None, zero_point=0):
        """Where int16 sums are widened more than once, one part of the 16 rows is done after the other, so that both
        kinds of sums fit in 16 registers."""
        step = min(SUMS_IN_INT16.get(code_bits, count) * (2 if zero_point else 1), count)
        every = list(range(self.parts))
        turns = [every] if step == count else [[part] for part in every]
        dots: dict[int, list] = {}
        for parts in turns:
            totals = None
            for first in range(0, count, step):
                begin = self._begin(b, emit.offset(b, words, 4 * tokens * first), tokens, step, zero_point)
                sums = [begin(t) for _ in parts for t in range(tokens)]
                sums = self._sum_lines(b, lines, words, range(first, first + step), tokens, code_bits, parts, sums)
                if code_bits != 8:
                    scales = [self._scale_at(b, pairs, part) for part in parts for _ in range(tokens)]
                    sums = [self.widen(b, value, scale) for value, scale in zip(sums, scales, strict=True)]
                totals = sums if totals is None else _add(b, totals, sums)
            for i, part in enumerate(parts):
                dots[part] = totals[i * tokens : (i + 1) * tokens]
        return [b.add(self.join(b, [dots[part][t] for part in every]), start(t)) for t in range(tokens)]

    def add_tile(self, b, totals, lines, words, count):
        """Added to the totals line by line: sums beside them would take the registers of both."""
        parts, tokens = range(self.parts), len(totals)
        halves = [self._halves(b, total) for total in totals]
        sums = [halves[t][part] for part in parts for t in range(tokens)]
        sums = self._sum_lines(b, lines, words, range(count), tokens, 8, parts, sums)
        return [self.join(b, sums[t::tokens]) for t in range(tokens)]

    def _scale_at(self, b, pairs, part):
        return None if pairs is None else emit.load(b, emit.offset(b, pairs, self.bytes.count * part), self.words, 32)

    def _sum_lines(self, b, lines, words, which, tokens, code_bits, parts, sums):
        """`sums` + those over code lines for every part and token, part-major: int16 pairs, or int32 for 8-bit
        codes."""
        nbytes = self.bytes.count
        for j in which:
            codes = [emit.load(b, emit.offset(b, lines, 64 * j + nbytes * part), self.bytes, 32) for part in parts]
            dots = [[] for _ in parts]
            for t in range(tokens):
                activations = emit.splat_word(b, emit.offset(b, words, 4 * (j * tokens + t)), nbytes)
                for i, code in enumerate(codes):
                    if code_bits == 8:
                        dots[i].append(self.wide_dot(b, code, activations))
                    else:
                        dots[i].append(self.maddubs(b, code, activations))
            flat = [dot for part in dots for dot in part]
            sums = emit.pin(b, flat if sums[0] is None else _add(b, sums, flat))
        return sums
