"""Byte dot products of AArch64 without `sdot`: `smull` and `smlal` add products in int16, pairs are widened to int32.

A register holds 4 rows x 4 columns of a code line; its low half makes 8 products of rows 0 and 1, its high half of
rows 2 and 3. The codes' width decides over how many lines int16 holds the sums, see SUMS_IN_INT16.
"""

from edgeq.simd import emit, intrinsics
from edgeq.simd.arm import Arm, signed
from edgeq.simd.emit import U8X16

# The largest product is (2**bits - 1) * 127, or 128 * 127: so many of them fit in int16.
SUMS_IN_INT16 = {4: 17, 5: 8, 6: 4, 8: 2}


class Neon(Arm):
    centred = frozenset({8})

    def bias(self, kind):
        return emit.FLOAT_BIAS if kind.zero_point else 0

    def dot_lines(self, b, total, lines, words, code_bits):
        step = min(SUMS_IN_INT16[code_bits], len(lines))
        wide: list = [None] * 4
        for first in range(0, len(lines), step):
            shorts: list = [None] * 4
            for j in range(first, first + step):
                word = _repeated_word(b, emit.offset(b, words, 4 * j))
                codes = [signed(b, part, code_bits) for part in emit.quarters(b, lines[j])]
                shorts = [_add_products(b, sums, part, word) for sums, part in zip(shorts, codes, strict=True)]
                shorts = _in_pairs(emit.pin(b, [value for pair in shorts for value in pair]))
            if step == len(lines) and 2 * step <= SUMS_IN_INT16[code_bits]:
                pairs = [intrinsics.ADDP_SHORTS(b, *sums) for sums in shorts]
                return emit.join(b, [_sadalp(b, *both) for both in zip(emit.quarters(b, total), pairs, strict=True)])
            wide = [_widen(b, *both) for both in zip(wide, shorts, strict=True)]
        sums = [intrinsics.ADDP_INTS(b, *both) for both in wide]
        return emit.join(b, [b.add(*both) for both in zip(emit.quarters(b, total), sums, strict=True)])

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start):
        """Done four rows at a time: their sums fit in registers."""
        starts = [start(t) for t in range(tokens)]
        dots: list[list] = [[] for _ in range(tokens)]
        for q in range(4):
            sums = self._sums_of_rows(b, lines, words, tokens, count, code_bits, q)
            for t in range(tokens):
                dots[t].append(b.add(emit.quarters(b, starts[t])[q], sums[t]))
        return [emit.join(b, parts) for parts in dots]

    def _sums_of_rows(self, b, lines, words, tokens, count, code_bits, q):
        """Dots of rows 4q to 4q + 3 with every token."""
        step = min(SUMS_IN_INT16[code_bits], count)
        wide = [None] * tokens
        for first in range(0, count, step):
            shorts: list = [None] * tokens
            for j in range(first, first + step):
                codes = signed(b, emit.load(b, emit.offset(b, lines, 64 * j + 16 * q), U8X16, 16), code_bits)
                for t in range(tokens):
                    word = _repeated_word(b, emit.offset(b, words, 4 * (j * tokens + t)))
                    shorts[t] = _add_products(b, shorts[t], codes, word)
                shorts = _in_pairs(emit.pin(b, [value for pair in shorts for value in pair]))
            wide = [_widen(b, wide[t], shorts[t]) for t in range(tokens)]
        return [intrinsics.ADDP_INTS(b, *parts) for parts in wide]


def _repeated_word(b, address):
    """A word in every lane. LLVM must not see that the halves are equal: it would move codes instead of `smull2`."""
    return emit.conceal(b, emit.splat_word(b, address, 16), "w")


def _in_pairs(values):
    return [values[i : i + 2] for i in range(0, len(values), 2)]


def _add_products(b, sums, codes, activations):
    """Int16 sums of rows 0 and 1, and of rows 2 and 3."""
    products = [intrinsics.SMULL(b, emit.half(b, codes, part), emit.half(b, activations, part)) for part in range(2)]
    return products if sums is None else [b.add(x, y) for x, y in zip(sums, products, strict=True)]


def _widen(b, wide, shorts):
    """Int32 sums of pairs, added to `wide`."""
    if wide is None:
        return [intrinsics.SADDLP(b, value) for value in shorts]
    return [_sadalp(b, total, value) for total, value in zip(wide, shorts, strict=True)]


def _sadalp(b, total, shorts):
    return b.add(total, intrinsics.SADDLP(b, shorts))


BODY = Neon()
