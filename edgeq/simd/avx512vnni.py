"""Byte dot products with `vpdpbusd`: unsigned codes x signed activations, four products added to an int32 lane."""

from edgeq.simd import emit
from edgeq.simd.emit import I32X16

BIAS = 0
TILE_BIAS = emit.FLOAT_BIAS  # where a tile's dots start, if `Codes.short_scales`
CENTRED: frozenset[int] = frozenset()  # code widths whose dots already take the zero point away


def dot_lines(b, total, lines, words, code_bits):
    """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line."""
    for j, line in enumerate(lines):
        total = _vpdpbusd(b, total, line, emit.splat_word(b, emit.offset(b, words, 4 * j), 64))
    return total


def dot_panels(b, totals, lines_of, which, words, code_bits):
    """`totals`, one for each panel, + its pairs of code lines `which` . the activations at `words`, see pmaddubsw."""
    for i in which:
        at = emit.offset(b, words, 8 * i)
        totals = emit.pin(b, [dot_lines(b, t, lines_of(panel, i), at, code_bits) for panel, t in enumerate(totals)])
    return totals


def dot_tile(b, lines, words, tokens, count, code_bits, start):
    """The int32x16 dots of `tokens` tokens over `count` code lines at `lines`, added to `start(token)`.

    Words (4 activations) lie [line][token].
    """
    totals: list = [None] * tokens
    for j in range(count):
        codes = emit.load(b, emit.offset(b, lines, 64 * j), emit.U8X64, 32)
        for t in range(tokens):
            activations = emit.splat_word(b, emit.offset(b, words, 4 * (j * tokens + t)), 64)
            totals[t] = _vpdpbusd(b, totals[t] if j else start(t), codes, activations)
        totals = emit.pin(b, totals)
    return totals


def _vpdpbusd(b, total, codes, activations):
    return emit.call(b, "llvm.x86.avx512.vpdpbusd.512", I32X16, [total, codes, activations])


def lookup(b, table, codes):
    """The byte of `table` (u8x16 constant) for each of 64 bytes 0 to 15."""
    tables = emit.join(b, [table] * 4)
    return emit.call(b, "llvm.x86.avx512.pshuf.b.512", emit.U8X64, [tables, codes])
