"""Dot products of one token with several panels at once, for a matvec that reads each of them from a place of its own.

Line by line, panel after panel: all panels use what is loaded of the activations, and while one panel's sums wait, the
next one's are added. Panels lie `apart` bytes apart, and so do their scales.
"""

import functools

from numba import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.body import Codes
from edgeq.simd.emit import I64
from edgeq.simd.isa import Isa
from edgeq.simd.target import Device
from edgeq.simd.tiles import dot_start, float_of_dots, pack, scale_of_codes
from edgeq.simd.types import Tile, f32x16


def places(b, address, apart, panels: int):
    return [b.add(address, b.mul(apart, I64(panel))) if panel else address for panel in range(panels)]


def make_dots(isa: Isa, panels: int, kind: Codes, pair, ahead: range, tokens: int = 1):
    """`dots(group, apart, words, sums, codes, codes_apart)`: a group of 32 columns of every panel . every token, as
    f32; times the scales at `codes`, where scales are codes. `pair(group, i)` makes code lines 2i and 2i + 1.

    Between lines the second cache is asked for what lies `ahead`, at these bytes from the group: many requests in a
    row would keep lines from being loaded.
    """
    body = isa.body()
    tile = Tile(f32x16, panels * tokens)
    start, bias = dot_start(body, tokens, kind), body.bias(kind)
    in_integers = body.scales_integers(kind)
    parts = [((0, 1), 3), ((2, 3), 4)] if kind.halves else [((0, 1, 2, 3), 2)]

    def pinned(b, value):
        """Computed here, where LLVM would keep what it is computed from, which takes more room."""
        if isa.registers == 32:
            return emit.pin(b, [value])[0]
        return emit.concat(b, *emit.pin(b, [emit.half(b, value, part) for part in range(2)]))

    def all_dots(b, lines_of, scale_of, words, sums):
        """The f32 dots of the panels, whose code lines are `lines_of(panel, i)`, and scales `scale_of(panel, part)`."""
        dots: list = []
        values: list = [None] * (panels * tokens)
        for part, (which, at) in enumerate(parts):
            if part == 0 or not in_integers:
                dots = list(map(start(b, emit.offset(b, sums, 4 * at * tokens)), range(tokens))) * panels
            if in_integers:
                pairs_of = functools.partial(
                    lambda part, panel: body.scale_pairs(b, scale_of(panel, part), kind.signed), part
                )
                dots = body.dot_panels(b, dots, lines_of, which, words, kind.bits, pairs_of, tokens=tokens)
                continue
            dots = body.dot_panels(b, dots, lines_of, which, words, kind.bits, tokens=tokens)
            for i, so_far in enumerate(values):
                value = float_of_dots(bias, b, dots[i])
                if kind.coded:
                    factor = scale_of_codes(b, scale_of(i // tokens, part), kind.signed)
                    value = b.fmul(value, factor) if so_far is None else emit.fma(b, value, factor, so_far)
                values[i] = value if part == len(parts) - 1 else pinned(b, value)
        return [float_of_dots(bias, b, dot) for dot in dots] if in_integers else values

    @intrinsic
    def dots(typingctx, group, apart, words, sums, codes, codes_apart):
        lines_of_pair = Device(typingctx, pair, types.int64, types.int64)

        def generate(context, b, signature, args):
            words, sums = args[2:4]
            # concealed, else LLVM keeps a pointer for each panel, more than there are registers
            groups, rows = (places(b, emit.conceal(b, at, "r"), apart, panels) for at, apart in (args[:2], args[4:]))

            def lines(panel, i):
                both = lines_of_pair(context, b, groups[panel], I64(i))
                for at in ahead[len(ahead) * i // 4 : len(ahead) * (i + 1) // 4]:
                    emit.prefetch(b, emit.offset(b, groups[panel], at), 2)
                return [b.extract_value(both, j) for j in range(2)]

            def scale(panel, part):
                return emit.load(b, emit.offset(b, rows[panel], 16 * part), emit.U8X16, 16)

            return pack(b, tile.llvm, all_dots(b, lines, scale, words, sums))

        return tile(*[types.int64] * 6), generate

    return dots


def rows_of_panels(panels: int, row):
    """`rows(block, apart, g)`: what the device function `row(block, g)` gives of each panel."""
    tile = Tile(f32x16, panels)

    @intrinsic
    def rows(typingctx, block, apart, g):
        function = Device(typingctx, row, types.int64, types.int64)

        def generate(context, b, signature, args):
            block, apart, g = args
            values = [function(context, b, address, g) for address in places(b, block, apart, panels)]
            return pack(b, tile.llvm, values)

        return tile(types.int64, types.int64, types.int64), generate

    return rows
