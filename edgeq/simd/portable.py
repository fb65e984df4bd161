"""Byte dot products in plain vector IR, for any CPU that LLVM knows. Correct first; the other bodies are fast."""

from llvmlite import ir

from edgeq.simd import emit

BIAS = 0
CENTRED: frozenset[int] = frozenset()


def dot_lines(b, total, lines, words, code_bits):
    """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line."""
    for j, line in enumerate(lines):
        total = dot_bytes(b, total, line, emit.splat_word(b, emit.offset(b, words, 4 * j), 64))
    return total


def dot_bytes(b, total, codes, activations):
    """total + the sums of four products each of unsigned `codes` and signed `activations`: what `vpdpbusd` does."""
    wide = ir.VectorType(emit.I32, codes.type.count)
    products = b.mul(b.zext(codes, wide), b.sext(activations, wide))
    for column in range(4):
        total = b.add(total, emit.shuffle(b, products, products, range(column, wide.count, 4)))
    return total


def dot_tile(b, lines, words, tokens, count, code_bits, start):
    """The int32x16 dots of `tokens` tokens over `count` code lines at `lines`, added to `start(token)`.

    Words (4 activations) lie [line][token].
    """
    totals = [start(t) for t in range(tokens)]
    for j in range(count):
        line = emit.load(b, emit.offset(b, lines, 64 * j), emit.U8X64, 32)
        for t in range(tokens):
            totals[t] = dot_lines(b, totals[t], [line], emit.offset(b, words, 4 * (j * tokens + t)), code_bits)
    return totals


def lookup(b, table, codes):
    """The byte of `table` (u8x16 constant) for each of 64 bytes 0 to 15."""
    result = codes
    for code in range(16):
        value = emit.splat(b, b.extract_element(table, emit.I32(code)), 64)
        result = b.select(b.icmp_unsigned("==", codes, emit.splat_constant(emit.U8X64, code)), value, result)
    return result
