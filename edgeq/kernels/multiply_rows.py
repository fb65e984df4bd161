"""Matrices whose rows have one scale times activations that have one per token: integers over a whole row, which become
floats once, at its end. What `multiply` needs for such a type.

A result is f32(dot) * scale of the row * scale of the token, in this order, each rounded, on every body and for any
number of tokens. Tiles read code lines where they lie: there is nothing to unpack.
"""

from types import SimpleNamespace

from edgeq.blocks.table import BlockType
from edgeq.kernels.few import FEW
from edgeq.kernels.layout import ROW_SUMS_BYTES
from edgeq.kernels.pack_rows import rest_width
from edgeq.kernels.streams import AHEAD, STEP
from edgeq.simd.isa import Isa
from edgeq.simd.memory import prefetch_l2, stack
from edgeq.simd.row_tiles import dots_to_f32, make_row_dots, row_tiles
from edgeq.simd.target import outlined
from edgeq.simd.tiles import operations
from edgeq.simd.vector import device, load_f32x16, load_splat_f32, load_u8x64, mul, store_f32x16

# Groups of a panel that all tokens are multiplied with before the next ones: their codes, 16 KiB, stay in L1
BLOCK = 32
FEW_BLOCK = 8  # the same where several panels take turns, read from as many places of memory


@device
def _finish_row(totals, scale, token_scale):
    """int32 dots of a panel's rows with a token become f32, in place."""
    store_f32x16(totals, mul(mul(dots_to_f32(totals), scale), load_splat_f32(token_scale)))


def make_rows(bt: BlockType, isa: Isa) -> SimpleNamespace:
    """`matvec` and `few`, as streams.py and few.py have them, `panel_times_tokens` and `panel_bytes`, as multiply.py
    has them, and `most`, the tokens that `few` takes."""
    header_bytes, group_bytes = bt.header_bytes, bt.group_bytes

    @device
    def panel_bytes(groups):
        return header_bytes + groups * group_bytes

    several = isa.streams > 1
    return SimpleNamespace(
        matvec=_make_matvec(isa, header_bytes, group_bytes),
        few=_make_few(isa, header_bytes, group_bytes) if several else None,
        most=FEW if several else 1,
        panel_times_tokens=_make_panel(isa, header_bytes, group_bytes),
        panel_bytes=panel_bytes,
    )


def _make_matvec(isa: Isa, header_bytes: int, group_bytes: int):
    streams = isa.streams
    begin, dots, store = make_row_dots(isa, streams, range(AHEAD, AHEAD + group_bytes, STEP))

    @outlined
    def matvec(panel, apart, groups, words, sums, totals):
        total = begin(sums + 4)
        group = panel + header_bytes
        for _ in range(groups):
            total = dots(group, apart, words, total)
            group += group_bytes
            words += 32
        store(totals, total)
        for s in range(streams):
            _finish_row(totals + s * 64, load_f32x16(panel + s * apart), sums)

    return matvec


def _make_step(isa: Isa, wide: int, ahead: int):
    """`step(lines, groups, words, totals)`: groups of a panel, as tiles read them, times a tile of `wide` tokens,
    added to `totals`, int32 [token][16]. What lies `ahead` bytes ahead is asked for, where that is not 0."""
    tile, at_once = row_tiles(isa, wide), isa.body().lines_at_once // 8
    load, store, add, add_group = tile.load, tile.store, tile.add_lines(8 * at_once), tile.add_lines(8)
    lines_bytes, word_bytes = 512 * at_once, 32 * wide * at_once

    @outlined
    def step(lines, groups, words, totals):
        total = load(totals)
        for _ in range(groups // at_once):
            if ahead:
                for line in range(ahead, ahead + lines_bytes, 64):
                    prefetch_l2(lines + line)
            total = add(total, lines, words)
            lines += lines_bytes
            words += word_bytes
        if at_once > 1:
            for _ in range(groups % at_once):
                total = add_group(total, lines, words)
                lines += 512
                words += 32 * wide
        store(totals, total)

    return step


def _make_steps(isa: Isa, ahead: int):
    """`step(wide, lines, groups, words, totals)` of any width that tokens are packed for."""
    steps = {wide: _make_step(isa, wide, ahead) for wide in (2, 4, 8) if wide <= isa.tile}
    step_2, step_4, widest = steps[2], steps[4], steps[isa.tile]

    @device
    def step(wide, lines, groups, words, totals):
        if wide == 2:
            step_2(lines, groups, words, totals)
        elif wide == 4:
            step_4(lines, groups, words, totals)
        else:
            widest(lines, groups, words, totals)

    return step


def _make_begin(isa: Isa):
    """`begin_tile(wide, sums, totals)`: where the dots of a tile begin."""
    one = row_tiles(isa, 1)
    begin, store = one.begin, one.store

    @device
    def begin_tile(wide, sums, totals):
        for t in range(wide):
            store(totals + t * 64, begin(sums + 4 * (wide + t)))

    return begin_tile


def _make_few(isa: Isa, header_bytes: int, group_bytes: int):
    tile, begin_tile, step = isa.tile, _make_begin(isa), _make_steps(isa, FEW_BLOCK * group_bytes)

    @outlined
    def few(panel, apart, panels, groups, words, sums, count, totals):
        for p in range(panels):
            for token in range(0, count, tile):
                wide = min(tile, rest_width(count - token))
                begin_tile(wide, sums + token * ROW_SUMS_BYTES, totals + (p * FEW + token) * 64)
        for first in range(0, groups, FEW_BLOCK):
            here = min(FEW_BLOCK, groups - first)
            for p in range(panels):
                lines = panel + p * apart + header_bytes + first * group_bytes
                for token in range(0, count, tile):
                    wide = min(tile, rest_width(count - token))
                    x = words + (token * groups + first * wide) * 32
                    step(wide, lines, here, x, totals + (p * FEW + token) * 64)
        for p in range(panels):
            scale = load_f32x16(panel + p * apart)
            for t in range(count):
                first = t // tile * tile
                at = first * ROW_SUMS_BYTES + (t - first) * 4
                _finish_row(totals + (p * FEW + t) * 64, scale, sums + at)

    return few


def _make_lines(isa: Isa):
    """`lines_of(block, groups, memory)`: where a block's code lines lie as tiles read them; in `memory`, if they lie
    otherwise in files."""
    if not isa.body().arranges:

        @device
        def as_they_are(block, groups, memory):
            return block

        return as_they_are
    store_pair = operations(isa, isa.tile).store_pair

    @device
    def arranged(block, groups, memory):
        for pair in range(0, groups * 512, 128):
            store_pair(memory + pair, load_u8x64(block + pair), load_u8x64(block + pair + 64))
        return memory

    return arranged


def _make_panel(isa: Isa, header_bytes: int, group_bytes: int):
    tile, begin_tile, step, lines_of = isa.tile, _make_begin(isa), _make_steps(isa, 0), _make_lines(isa)
    lines_bytes = BLOCK * group_bytes if isa.body().arranges else 64

    @device
    def panel_times_tokens(panel, groups, words, sums, tokens, totals):
        """A panel x `tokens` tokens into `totals`, f32 [token][16]."""
        memory = stack(lines_bytes)
        tiles = (tokens + tile - 1) // tile
        for t in range(0, tokens, tile):
            begin_tile(min(tile, rest_width(tokens - t)), sums + t * ROW_SUMS_BYTES, totals + t * 64)
        block = panel + header_bytes
        for first in range(0, groups, BLOCK):
            here = min(BLOCK, groups - first)
            size = here * group_bytes
            lines = lines_of(block, here, memory)
            part = (size // 64 + tiles) // tiles * 64
            for t in range(tiles):
                ahead = block + size + t * part
                for line in range(ahead, ahead + part, 64):
                    prefetch_l2(line)
                wide = min(tile, rest_width(tokens - t * tile))
                x = words + (t * tile * groups + first * wide) * 32
                step(wide, lines, here, x, totals + t * tile * 64)
            block += size
        scale = load_f32x16(panel)
        for t in range(tokens):
            first = t // tile * tile
            _finish_row(totals + t * 64, scale, sums + first * ROW_SUMS_BYTES + (t - first) * 4)

    return panel_times_tokens
