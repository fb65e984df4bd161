"""Byte dot products with `vpdpbusd` on 256-bit registers: laptops since Alder Lake, which have no AVX-512."""

from llvmlite import ir

from edgeq.simd import avx2, emit
from edgeq.simd.emit import I8, I32

BIAS = 0
TILE_BIAS = emit.FLOAT_BIAS  # where a tile's dots start, if `Codes.short_scales`
CENTRED: frozenset[int] = frozenset()  # code widths whose dots already take the zero point away
_BYTES, _INTS = ir.VectorType(I8, 32), ir.VectorType(I32, 8)

lookup = avx2.lookup


def dot_lines(b, total, lines, words, code_bits, apart=4):
    """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line, `apart` bytes
    apart."""
    sums = [emit.half(b, total, part) for part in range(2)]
    for j, line in enumerate(lines):
        activations = emit.splat_word(b, emit.offset(b, words, apart * j), 32)
        sums = [_vpdpbusd(b, sums[part], emit.half(b, line, part), activations) for part in range(2)]
    return emit.concat(b, *sums)


def dot_panels(b, totals, lines_of, which, words, code_bits, tokens=1):
    """`totals`, of every panel one for each token, + its pairs of code lines `which` . the activations at `words`, see
    pmaddubsw."""
    for i in which:
        places = [emit.offset(b, words, 4 * (2 * i * tokens + t)) for t in range(tokens)]
        for first in range(0, len(totals), tokens):
            lines, mine = lines_of(first // tokens, i), totals[first : first + tokens]
            mine = [
                dot_lines(b, total, lines, at, code_bits, 4 * tokens) for total, at in zip(mine, places, strict=True)
            ]
            parts = emit.pin(b, [emit.half(b, total, part) for total in mine for part in range(2)])
            totals[first : first + tokens] = [emit.concat(b, *parts[2 * t : 2 * t + 2]) for t in range(tokens)]
    return totals


def dot_tile(b, lines, words, tokens, count, code_bits, start):
    """The int32x16 dots of `tokens` tokens over `count` code lines at `lines`, added to `start(token)`.

    Words (4 activations) lie [line][token].
    """
    sums = [emit.half(b, total, part) for total in map(start, range(tokens)) for part in range(2)]
    for j in range(count):
        codes = [emit.load(b, emit.offset(b, lines, 64 * j + 32 * part), _BYTES, 32) for part in range(2)]
        for t in range(tokens):
            activations = emit.splat_word(b, emit.offset(b, words, 4 * (j * tokens + t)), 32)
            for part in range(2):
                sums[2 * t + part] = _vpdpbusd(b, sums[2 * t + part], codes[part], activations)
        sums = emit.pin(b, sums)
    return [emit.concat(b, *sums[2 * t : 2 * t + 2]) for t in range(tokens)]


def _vpdpbusd(b, sums, codes, activations):
    """Eight int32 lanes, each plus four products of unsigned `codes` and signed `activations`."""
    return emit.call(b, "llvm.x86.avx512.vpdpbusd.256", _INTS, [sums, codes, activations])
