"""Byte dot products with `sdot` by lane: four products of signed bytes added to an int32 lane.

A register holds 4 rows x 4 columns of a code line; the 4 activations of a line and token are one lane of another, so
nothing is repeated over lanes: 16 bytes are the words of 4 lines (matvec) or of 4 tokens (matmul).
"""

from llvmlite import ir

from edgeq.simd import emit, neon
from edgeq.simd.emit import I32, I32X4, I64, U8X16

BIAS = emit.FLOAT_BIAS
lookup = neon.lookup
IN_TWO = True  # groups of 8 lines, 4 at a time: 16 registers of codes are too many
CENTRED = frozenset({8})  # 8-bit codes are made signed by flipping their top bit, which takes 128 away


def start(b, scalar, near):
    """`scalar` in 16 lanes, by an instruction for every register that takes no vector pipe.

    The address `near`, which changes with every group, keeps LLVM from making them once, and copying after.
    """
    if near is None:
        return emit.join(b, [emit.splat(b, emit.conceal(b, scalar, "r"), 4)] * 4)
    kind = ir.FunctionType(I32, [I32, I64, I32])
    copy = ir.InlineAsm(kind, "", "=r,0,r,i", side_effect=False)
    copies = [b.call(copy, [scalar, near, I32(q)], attrs=("readnone", "nounwind")) for q in range(4)]
    return emit.join(b, [emit.splat(b, value, 4) for value in copies])


def dot_lines(b, total, lines, words, code_bits):
    """total + code lines (u8x64: 16 rows x 4 columns) . the activations at `words`, 4 for each line."""
    parts = emit.quarters(b, total)
    for first in range(0, len(lines), 4):
        activations = emit.load(b, emit.offset(b, words, 4 * first), U8X16, 4)
        for lane, line in enumerate(lines[first : first + 4]):
            codes = [_signed(b, part, code_bits) for part in emit.quarters(b, line)]
            parts = [_sdot(b, part, code, activations, lane) for part, code in zip(parts, codes, strict=True)]
        parts = emit.pin(b, parts)
    return emit.join(b, parts)


def dot_tile(b, lines, words, tokens, count, code_bits, start):
    """The int32x16 dots of `tokens` tokens over `count` code lines at `lines`, added to `start(token)`.

    Words (4 activations) lie [line][token].
    """
    totals = [emit.quarters(b, start(t)) for t in range(tokens)]
    for j in range(count):
        codes = [
            _signed(b, emit.load(b, emit.offset(b, lines, 64 * j + 16 * q), U8X16, 16), code_bits) for q in range(4)
        ]
        for t in range(tokens):
            at = j * tokens + t
            activations = emit.load(b, emit.offset(b, words, at // 4 * 16), U8X16, 4)
            totals[t] = [_sdot(b, part, code, activations, at % 4) for part, code in zip(totals[t], codes, strict=True)]
        pinned = emit.pin(b, [part for parts in totals for part in parts])
        totals = [pinned[4 * t : 4 * t + 4] for t in range(tokens)]
    return [emit.join(b, parts) for parts in totals]


def _signed(b, codes, code_bits):
    return b.xor(codes, emit.splat_constant(U8X16, 128)) if code_bits == 8 else codes


def _sdot(b, total, codes, activations, lane):
    repeated = emit.repeat_word(b, activations, lane)
    return emit.call(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", I32X4, [total, codes, repeated])
