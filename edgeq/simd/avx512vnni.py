"""Byte dot products with `vpdpbusd`: unsigned codes x signed activations, four products added to an int32 lane."""

from edgeq.simd import emit
from edgeq.simd.emit import I32X16

BIAS = 0
TILE_BIAS = emit.FLOAT_BIAS  # where a tile's dots start, if `Codes.short_scales`
CENTRED: frozenset[int] = frozenset()  # code widths whose dots already take the zero point away


def dot_lines(b, total, lines, words, code_bits, apart=4):
    """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line, `apart` bytes
    apart."""
    for j, line in enumerate(lines):
        total = _vpdpbusd(b, total, line, emit.splat_word(b, emit.offset(b, words, apart * j), 64))
    return total


def dot_panels(b, totals, lines_of, which, words, code_bits, tokens=1):
    """`totals`, of every panel one for each token, + its pairs of code lines `which` . the activations at `words`, see
    pmaddubsw."""
    for i in which:
        places = [emit.offset(b, words, 4 * (2 * i * tokens + t)) for t in range(tokens)]
        for first in range(0, len(totals), tokens):
            lines = lines_of(first // tokens, i)
            for at, place in enumerate(places, first):
                totals[at] = dot_lines(b, totals[at], lines, place, code_bits, 4 * tokens)
        totals = emit.pin(b, totals)
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
