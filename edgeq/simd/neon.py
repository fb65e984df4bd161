"""Byte dot products of AArch64 without `sdot`: `smull` and `smlal` add products in int16, pairs are widened to int32.

A register holds 4 rows x 4 columns of a code line; its low half makes 8 products of rows 0 and 1, its high half of
rows 2 and 3. The codes' width decides over how many lines int16 holds the sums, see SUMS_IN_INT16.
"""

from llvmlite import ir

from edgeq.simd import emit
from edgeq.simd.emit import I32X4, U8X16

BIAS, BIAS_OF_ZERO = emit.FLOAT_BIAS, 0
CENTRED = frozenset({8})  # 8-bit codes are made signed by flipping their top bit, which takes 128 away

# The largest product is (2**bits - 1) * 127, or 128 * 127: so many of them fit in int16.
SUMS_IN_INT16 = {4: 17, 5: 8, 6: 4, 8: 2}

_BYTES, _SHORTS = ir.VectorType(emit.I8, 8), ir.VectorType(emit.I16, 8)


def dot_lines(b, total, lines, words, code_bits):
    """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line."""
    step = min(SUMS_IN_INT16[code_bits], len(lines))
    wide: list = [None] * 4
    for first in range(0, len(lines), step):
        shorts: list = [None] * 4
        for j in range(first, first + step):
            word = _repeated_word(b, emit.offset(b, words, 4 * j))
            codes = [_signed(b, part, code_bits) for part in emit.quarters(b, lines[j])]
            shorts = [_add_products(b, sums, part, word) for sums, part in zip(shorts, codes, strict=True)]
            shorts = _in_pairs(emit.pin(b, [value for pair in shorts for value in pair]))
        if step == len(lines) and 2 * step <= SUMS_IN_INT16[code_bits]:
            pairs = [_addp(b, *sums) for sums in shorts]
            return emit.join(b, [_sadalp(b, *both) for both in zip(emit.quarters(b, total), pairs, strict=True)])
        wide = [_widen(b, *both) for both in zip(wide, shorts, strict=True)]
    sums = [_pairs(b, *both) for both in wide]
    return emit.join(b, [b.add(*both) for both in zip(emit.quarters(b, total), sums, strict=True)])


def dot_tile(b, lines, words, tokens, count, code_bits, start):
    """The int32x16 dots of `tokens` tokens over `count` code lines at `lines`, added to `start(token)`.

    Words (4 activations) lie [line][token]. Done four rows at a time: their sums fit in registers.
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
            shorts = _in_pairs(emit.pin(b, [value for pair in shorts for value in pair]))
        wide = [_widen(b, wide[t], shorts[t]) for t in range(tokens)]
    return [_pairs(b, *parts) for parts in wide]


def _repeated_word(b, address):
    """A word in every lane. LLVM must not see that the halves are equal: it would move codes instead of `smull2`."""
    return emit.conceal(b, emit.splat_word(b, address, 16), "w")


def _in_pairs(values):
    return [values[i : i + 2] for i in range(0, len(values), 2)]


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


def lookup(b, table, codes):
    """The byte of `table` (u8x16 constant) for each of 64 bytes 0 to 15."""
    name = "llvm.aarch64.neon.tbl1.v16i8"
    return emit.join(b, [emit.call(b, name, U8X16, [table, part]) for part in emit.quarters(b, codes)])
