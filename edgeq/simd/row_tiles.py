"""Tiles of int32 dots that run over whole rows: what a matrix whose rows have one scale needs in place of `tiles`.

Nothing is scaled, or made a float, before the last column. Activations come packed by `kernels/pack_rows.py`: words
[line][token][4] and per token the scale and -sum. int32 sums may wrap around on the way, where codes are unsigned: what
comes out at the end fits (`MOST_COLUMNS` of blocks/table.py).
"""

from types import SimpleNamespace

from numba import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.emit import F32X16, I32, I32X16, I64
from edgeq.simd.isa import Isa
from edgeq.simd.panel_dots import places
from edgeq.simd.tiles import pack
from edgeq.simd.types import Tile, f32x16, i32x16
from edgeq.simd.vector import operation

ZERO_POINT_BITS = 7  # codes are unsigned, 128 stands for zero


@operation(f32x16, types.int64)
def dots_to_f32(b, address):
    """16 int32 as f32, rounded to nearest."""
    return b.sitofp(emit.load(b, address, I32X16, 4), F32X16)


def row_tiles(isa: Isa, tokens: int) -> SimpleNamespace:
    """A tile of `tokens` tokens: `begin`, `load`, `store` and `add`, to the totals, of `isa.body().lines_at_once` code
    lines or of the 8 of a group."""
    body, ints = isa.body(), Tile(i32x16, tokens)
    centred = 8 in body.centred

    @intrinsic
    def begin(typingctx, sums):
        """Where dots of tokens begin whose -sums are at `sums`."""

        def generate(context, b, signature, args):
            return pack(b, ints.llvm, [_begin(b, args[0], t, centred) for t in range(tokens)])

        return ints(types.int64), generate

    @intrinsic
    def load(typingctx, address):
        def generate(context, b, signature, args):
            rows = [emit.load(b, emit.offset(b, args[0], 64 * t), I32X16, 4) for t in range(tokens)]
            return pack(b, ints.llvm, rows)

        return ints(types.int64), generate

    @intrinsic
    def store(typingctx, address, tile):
        def generate(context, b, signature, args):
            for t in range(tokens):
                emit.store(b, emit.offset(b, args[0], 64 * t), b.extract_value(args[1], t), 4)
            return context.get_dummy_value()

        return types.void(types.int64, ints), generate

    def adder(count: int):
        @intrinsic
        def add(typingctx, total, lines, words):
            def generate(context, b, signature, args):
                total, lines, words = args
                totals = [b.extract_value(total, t) for t in range(tokens)]
                return pack(b, ints.llvm, body.add_tile(b, totals, lines, words, count))

            return ints(ints, types.int64, types.int64), generate

        return add

    return SimpleNamespace(begin=begin, load=load, store=store, add_lines=adder)


def _begin(b, sums, token: int, centred: bool):
    """-128 times the sum of a token's activations, or 0 where dots take the zero point away by themselves."""
    if centred:
        return emit.splat_constant(I32X16, 0)
    negative = emit.load(b, emit.offset(b, sums, 4 * token), I32, 4)
    return emit.splat(b, b.shl(negative, I32(ZERO_POINT_BITS)), 16)


def make_row_dots(isa: Isa, panels: int, ahead: range):
    """Of one token with `panels` panels at once: `begin(sums)`, where their dots begin; `dots(group, apart, words,
    total)`, with a group of 32 columns of each panel, these `apart` bytes apart; `store(address, total)`. Between lines
    the second cache is asked for what lies `ahead`, at these bytes from the group."""
    body, ints = isa.body(), Tile(i32x16, panels)
    centred = 8 in body.centred

    @intrinsic
    def begin(typingctx, sums):
        def generate(context, b, signature, args):
            return pack(b, ints.llvm, [_begin(b, args[0], 0, centred)] * panels)

        return ints(types.int64), generate

    @intrinsic
    def dots(typingctx, group, apart, words, total):
        def generate(context, b, signature, args):
            group, apart, words, total = args
            groups = places(b, emit.conceal(b, group, "r"), apart, panels)
            totals = [b.extract_value(total, panel) for panel in range(panels)]

            def lines(panel, i):
                both = [emit.load(b, emit.offset(b, groups[panel], 64 * (2 * i + j)), emit.U8X64, 32) for j in range(2)]
                for at in ahead[len(ahead) * i // 4 : len(ahead) * (i + 1) // 4]:
                    emit.prefetch(b, emit.offset(b, groups[panel], at), 2)
                return both

            if panels > 1:
                return pack(b, ints.llvm, body.dot_panels(b, totals, lines, range(4), words, 8))
            dot = totals[0]
            for half in range(2):
                four = [line for i in range(2) for line in lines(0, 2 * half + i)]
                dot = body.dot_lines(b, dot, four, emit.offset(b, words, 16 * half), 8)
            return pack(b, ints.llvm, [dot])

        return ints(types.int64, types.int64, types.int64, ints), generate

    @intrinsic
    def store(typingctx, address, tile):
        def generate(context, b, signature, args):
            for panel in range(panels):
                emit.store(b, b.add(args[0], I64(64 * panel)), b.extract_value(args[1], panel), 4)
            return context.get_dummy_value()

        return types.void(types.int64, ints), generate

    return begin, dots, store
