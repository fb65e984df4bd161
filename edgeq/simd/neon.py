"""Byte dot products of AArch64 without `sdot`: `smull` and `smlal` add products in int16, pairs are widened to int32.

A register holds 4 rows x 4 columns of a code line; its low half makes 8 products of rows 0 and 1, its high half of
rows 2 and 3. The codes' width decides over how many lines int16 holds the sums, see SUMS_IN_INT16.
"""

from llvmlite import ir

from edgeq.simd import emit
from edgeq.simd.emit import I32X4, U8X16

BIAS = emit.FLOAT_BIAS
CENTRED = frozenset({8})  # 8-bit codes are made signed by flipping their top bit, which takes 128 away

# The largest product is (2**bits - 1) * 127, or 128 * 127: so many of them fit in int16.
SUMS_IN_INT16 = {4: 17, 5: 8, 6: 4, 8: 2}

_BYTES, _SHORTS = ir.VectorType(emit.I8, 8), ir.VectorType(emit.I16, 8)


def dot_lines(b, total, lines, words, code_bits):
    """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line."""
    activations = [_repeated_word(b, emit.offset(b, words, 4 * j)) for j in range(len(lines))]
    quarters = [emit.quarters(b, line) for line in lines]
    parts = [
        _dot_rows(b, part, [line[q] for line in quarters], activations, code_bits)
        for q, part in enumerate(emit.quarters(b, total))
    ]
    return emit.join(b, parts)


def dot_tile(b, lines, words, tokens, count, code_bits, start):
    """The int32x16 dots of `tokens` tokens over `count` code lines at `lines`, added to `start(token)`.

    Words (4 activations) lie [line][token]. Four rows are done after the other, so that all their sums fit in registers.
    """
    starts = [start(t) for t in range(tokens)]
    dots: list[list] = [[] for _ in range(tokens)]
    for q in range(4):
        sums = _sums_of_rows(b, lines, words, tokens, count, code_bits, q)
        for t in range(tokens):
            dots[t].append(b.add(emit.quarters(b, starts[t])[q], sums[t]))
    return [emit.join(b, parts) for parts in dots]


def _sums_of_rows(b, lines, words, tokens, count, code_bits, q):
    """Dots of rows 4q to 4q + 3 with every token."""
    step = min(SUMS_IN_INT16[code_bits], count)
    wide = [None] * tokens
    for first in range(0, count, step):
        shorts: list = [None] * tokens
        for j in range(first, first + step):
            codes = _signed(b, emit.load(b, emit.offset(b, lines, 64 * j + 16 * q), U8X16, 16), code_bits)
            for t in range(tokens):
                word = _repeated_word(b, emit.offset(b, words, 4 * (j * tokens + t)))
                shorts[t] = _add_products(b, shorts[t], codes, word)
        wide = [_widen(b, wide[t], shorts[t]) for t in range(tokens)]
    return [_pairs(b, *parts) for parts in wide]


def _dot_rows(b, total, lines, activations, code_bits):
    """total + 4 rows . activations: registers of code lines against repeated words."""
    step = min(SUMS_IN_INT16[code_bits], len(lines))
    wide = None
    for first in range(0, len(lines), step):
        shorts = None
        for j in range(first, first + step):
            shorts = _add_products(b, shorts, _signed(b, lines[j], code_bits), activations[j])
        if step == len(lines) and 2 * step <= SUMS_IN_INT16[code_bits]:
            return _sadalp(b, total, _addp(b, *shorts))
        wide = _widen(b, wide, shorts)
    return b.add(total, _pairs(b, *wide))


def _repeated_word(b, address):
    """A word in every lane. LLVM must not see that the halves are equal: it would move codes instead of `smull2`."""
    return emit.conceal(b, emit.splat_word(b, address, 16), "w")


def _signed(b, codes, code_bits):
    return b.xor(codes, emit.splat_constant(U8X16, 128)) if code_bits == 8 else codes


def _add_products(b, sums, codes, activations):
    """Int16 sums of rows 0 and 1, and of rows 2 and 3."""
    products = [
        emit.call(b, "llvm.aarch64.neon.smull.v8i16", _SHORTS, [emit.half(b, codes, h), emit.half(b, activations, h)])
        for h in range(2)
    ]
    return products if sums is None else [b.add(x, y) for x, y in zip(sums, products, strict=True)]


def _widen(b, wide, shorts):
    """Int32 sums of pairs, added to `wide`."""
    if wide is None:
        return [emit.call(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", I32X4, [value]) for value in shorts]
    return [_sadalp(b, total, value) for total, value in zip(wide, shorts, strict=True)]


def _sadalp(b, total, shorts):
    return b.add(total, emit.call(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", I32X4, [shorts]))


def _addp(b, low, high):
    return emit.call(b, "llvm.aarch64.neon.addp.v8i16", _SHORTS, [low, high])


def _pairs(b, low, high):
    return emit.call(b, "llvm.aarch64.neon.addp.v4i32", I32X4, [low, high])
