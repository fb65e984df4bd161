"""A few tokens at once, or the last ones of many that fill no tile: codes are decoded in registers, as at decode, and
multiplied by all of these tokens before the next ones are. Nothing is unpacked, which would cost more than it saves.

Several panels take turns, super-block by super-block: memory gives more to several streams than to one.
"""

from types import SimpleNamespace

from edgeq.kernels.layout import SUMS_BYTES
from edgeq.kernels.pack_rows import rest_width
from edgeq.kernels.streams import make_add_block
from edgeq.simd.isa import Isa
from edgeq.simd.memory import prefetch_l2
from edgeq.simd.panel_dots import make_dots
from edgeq.simd.target import outlined
from edgeq.simd.vector import device, store_f32x16, zero_f32x16

FEW = 8  # tokens at most; for more it pays to unpack codes once


def make_add_tile(kind: SimpleNamespace, isa: Isa):
    """`add_tile(wide, block, groups, words, sums, totals)`: a super-block of a panel times a tile of `wide` tokens,
    added to `totals`, f32 [token][16]."""
    steps = {wide: _make_step(kind, isa, wide) for wide in (2, 4, 8) if wide <= isa.tile}
    step_2, step_4, widest = steps[2], steps[4], steps[isa.tile]

    @device
    def add_tile(wide, block, groups, words, sums, totals):
        if wide == 2:
            step_2(block, groups, words, sums, totals)
        elif wide == 4:
            step_4(block, groups, words, sums, totals)
        else:
            widest(block, groups, words, sums, totals)

    return add_tile


def _make_step(kind: SimpleNamespace, isa: Isa, wide: int):
    """`add_tile` for one width. It asks ahead for what is read at this panel's next turn, by every line: hardware
    prefetchers see too little of a panel in a row."""
    header_bytes, group_bytes = kind.header_bytes, kind.group_bytes
    ahead = header_bytes + 8 * group_bytes
    dots = make_dots(isa, 1, kind.codes, kind.pair, range(ahead, ahead + group_bytes, 64), wide)
    add_block = make_add_block(kind, isa, dots, 1, wide)

    @outlined
    def step(block, groups, words, sums, totals):
        for line in range(ahead, ahead + header_bytes, 64):
            prefetch_l2(block + line)
        add_block(block, 0, groups, words, sums, totals)

    return step


def make_few(kind: SimpleNamespace, isa: Isa, add_tile):
    """`few(panel, apart, panels, groups, words, sums, count, totals)`: `panels` panels, `apart` bytes apart, times 2 to
    FEW tokens into `totals`, f32 [panel][FEW][16]."""
    header_bytes, group_bytes, tile = kind.header_bytes, kind.group_bytes, isa.tile

    @outlined
    def few(panel, apart, panels, groups, words, sums, count, totals):
        for row in range(0, panels * (FEW * 64), 64):
            store_f32x16(totals + row, zero_f32x16())
        for first in range(0, groups, 8):
            here = min(8, groups - first)
            for p in range(panels):
                for token in range(0, count, tile):
                    wide = min(tile, rest_width(count - token))
                    at = token * groups + first * wide
                    add_tile(
                        wide,
                        panel + p * apart,
                        here,
                        words + at * 32,
                        sums + at * SUMS_BYTES,
                        totals + (p * FEW + token) * 64,
                    )
            panel += header_bytes + here * group_bytes

    return few
