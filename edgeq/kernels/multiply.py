"""Weights x activations: one token is a matvec (decode, see `streams` and `matvec`), and a few are read like one (see
`few`); a matmul unpacks a super-block once into L1 and serves every tile of tokens from there (prefill).

All do the same float operations in the same order for every token, so a token's result does not depend on how a
prompt was split.
"""

from types import SimpleNamespace

from edgeq.blocks.table import BlockType, block_type
from edgeq.kernels import codes
from edgeq.kernels.codes import SCRATCH
from edgeq.kernels.few import FEW, make_add_tile, make_few
from edgeq.kernels.layout import ROW_SUMS_BYTES, SUMS_BYTES
from edgeq.kernels.matvec import HIGH, LOW, half_sum, make_matvec
from edgeq.kernels.multiply_rows import make_rows
from edgeq.kernels.pack_rows import rest_width
from edgeq.kernels.streams import FLOAT_STREAMS, make_float_streams, make_streams
from edgeq.kernels.turns import NOBODY, make_panel_turns, next_owner, take
from edgeq.simd.isa import Isa
from edgeq.simd.memory import hide, prefetch_l2, stack, store_f32
from edgeq.simd.tiles import operations
from edgeq.simd.vector import (
    add,
    device,
    load_f32x16,
    load_u8x16,
    splat_f32,
    store_f32x16,
    u8x16_to_f32,
    zero_f32x16,
)

CHUNK = 128  # tokens that share an unpacked super-block: accumulators and code lines stay in L1, activations in L2
LOW_LINES = 4096  # bytes of the code lines of a super-block; where values have two bytes, lines of the low ones follow
# Bytes of the rows of mins of a super-block, and of those of scales, after which is room for the body's own
ROWS, SCALE_ROWS = 1024, 2048
# A matmul asks for a super-block this many ahead, a part of it with each tile: where tiles are few, it waits for memory
BLOCKS_AHEAD = 3


def make_multiply(variant: str, isa: Isa):
    """`multiply(weights, rows, columns, words, sums, out, stride, count, bias, accumulate, crew)` for the block type
    `variant`: a matrix times `count` tokens; for float types f32 rows and their stride are words and sums.
    """
    if variant in codes.FLOATS:
        return _make_float(variant, isa)
    if (bt := block_type(variant)).per_row:
        return _make_by_rows(bt, isa)
    return _make_quantized(variant, isa)


@device
def _finish(out, value, bias, accumulate):
    """Write 16 outputs of one token: + bias, + what is there."""
    if bias != 0:
        value = add(value, load_f32x16(bias))
    if accumulate != 0:
        value = add(load_f32x16(out), value)
    store_f32x16(out, value)


def _make_few_tokens(matvec, few, streams: int):
    """`few_tokens`: a thread's share of a matrix times one token, by `matvec(panel, apart, size, words, sums, totals)`,
    which takes `streams` panels at once; or times up to FEW, by `few` (see few.py), where there is one."""
    share, turn = make_panel_turns(streams)

    @device
    def few_tokens(weights, panel_bytes, panels, size, words, sums, out, stride, count, bias, accumulate, totals, crew):
        whose, i, room = crew.thread, -1, 64 if few is None or count == 1 else FEW * 64
        while whose != NOBODY:
            first, each, left = share(panels, whose, crew.n_threads)
            i = take(crew, whose, i, each + left)
            if i == each + left:
                whose, i = next_owner(crew, whose), -1
                continue
            p, apart, n = turn(i, panels, first, each, left)
            panel = weights + p * panel_bytes
            if few is None or count == 1:
                matvec(panel, apart * panel_bytes, size, words, sums, totals)
            else:
                few(panel, apart * panel_bytes, n, size, words, sums, count, totals)
            for s in range(n):
                at = (p + s * apart) * 64
                row_bias = bias + at if hide(bias) != 0 else 0
                for t in range(count):
                    total = load_f32x16(totals + s * room + t * 64)
                    _finish(out + t * stride + at, total, row_bias, accumulate)

    return few_tokens


def _make_tile_step(kind: SimpleNamespace, ops: SimpleNamespace, tokens: int, in_memory: bool):
    """One super-block, unpacked in `lines`, `scales`, `mins`, times one tile of tokens, added to the totals.

    Where scales are coded, `parts` collects the dots in units of d, the first row of `factors`; mins count in units of
    the second. `in_memory`: the dots leave no registers for sums, which then pass through L1 every group.
    """
    has_mins, coded = kind.has_mins, kind.codes.coded
    plain_mins, two_bytes = has_mins and not coded, kind.low_pair is not None
    scaled_tile, tile_fma, tile_zero = ops.scaled_tile, ops.tile_fma, ops.tile_zero
    tile_add_scaled, tile_add_outer = ops.tile_add_scaled, ops.tile_add_outer
    tile_load, tile_store = ops.tile_load, ops.tile_store
    row = 4 * tokens
    halves = kind.codes.halves
    scale_step = 128 if halves else 64

    @device
    def add_groups(lines, scales, mins, groups, words, sums, total, address):
        """`total` (which is also at `address`, if it has to be in memory) + the groups' scaled dots, and mins that are
        no codes."""
        for g in range(groups):
            part = scaled_tile(lines + g * 512, words, sums, scales + g * scale_step)
            if two_bytes:
                low = scaled_tile(lines + LOW_LINES + g * 512, words, sums, scales + g * scale_step)
                part = tile_fma(part, splat_f32(HIGH), tile_fma(low, splat_f32(LOW), tile_zero()))
            if in_memory:
                total = tile_load(address, 64)
            total = tile_add_scaled(total, part, sums)
            if plain_mins:
                total = tile_add_outer(total, load_f32x16(mins + g * 64), sums + row, 4)
            words += 32 * tokens
            sums += SUMS_BYTES * tokens
            if in_memory:
                tile_store(address, 64, total)
        return tile_load(address, 64) if in_memory else total

    @device
    def coded_step(lines, scales, mins, factors, groups, words, sums, totals, parts):
        half_sums = stack(row)
        if in_memory:
            tile_store(parts, 64, tile_zero())
        part = add_groups(lines, scales, mins, groups, words, sums, tile_zero(), parts)
        total = tile_fma(part, load_f32x16(factors), tile_load(totals, 64))
        if has_mins:
            least = tile_zero()
            for g in range(groups):
                if halves:
                    for half in range(2):
                        for t in range(tokens):
                            store_f32(half_sums + 4 * t, half_sum(sums + 4 * t, row, half))
                        least = tile_add_outer(least, load_f32x16(mins + (2 * g + half) * 64), half_sums, 4)
                    sums += SUMS_BYTES * tokens
                    continue
                least = tile_add_outer(least, load_f32x16(mins + g * 64), sums + row, 4)
                sums += SUMS_BYTES * tokens
            total = tile_fma(least, load_f32x16(factors + 64), total)
        tile_store(totals, 64, total)

    @device
    def plain_step(lines, scales, mins, factors, groups, words, sums, totals, parts):
        total = add_groups(lines, scales, mins, groups, words, sums, tile_load(totals, 64), totals)
        if not in_memory:
            tile_store(totals, 64, total)

    return coded_step if coded else plain_step


def _make_last_step(kind: SimpleNamespace, isa: Isa, add_tile):
    """`last_step(wide, block, lines, scales, mins, factors, groups, words, sums, totals, parts)`: as a tile step, for
    the tokens that are left, which fill a tile of `wide`; from `block` itself, where there is an `add_tile`."""
    if add_tile is None:
        assert isa.tile == 4
        narrow_step = _make_tile_step(kind, operations(isa, 2, kind.codes, bias_rows=ROWS), 2, isa.registers < 32)

        @device
        def from_lines(wide, block, lines, scales, mins, factors, groups, words, sums, totals, parts):
            narrow_step(lines, scales, mins, factors, groups, words, sums, totals, parts)

        return from_lines

    @device
    def from_block(wide, block, lines, scales, mins, factors, groups, words, sums, totals, parts):
        add_tile(wide, block, groups, words, sums, totals)

    return from_block


def _make_header(kind: SimpleNamespace, ops: SimpleNamespace):
    """`header(block, scales, mins, factors)`: what a tile step reads of a super-block's header, in rows of 64 bytes."""
    coded, has_mins, count = kind.codes.coded, kind.has_mins, 16 if kind.codes.halves else 8
    scale_row, min_row, scale_codes = kind.scale_row, kind.min_row, kind.scale_codes
    take_factors, store_scale, store_scale_row = kind.factors, ops.store_scale, ops.store_scale_row

    @device
    def coded_header(block, scales, mins, factors):
        scratch = stack(SCRATCH)
        scales_at, mins_at = scale_codes(block, scratch)
        for i in range(count):
            store_scale(scales + i * 64, scales_at + i * 16)
        d, dmin = take_factors(block)
        store_f32x16(factors, d)
        if has_mins:
            store_f32x16(factors + 64, dmin)
            for i in range(count):
                store_f32x16(mins + i * 64, u8x16_to_f32(load_u8x16(mins_at + i * 16)))

    @device
    def plain_header(block, scales, mins, factors):
        for g in range(8):
            store_scale_row(scales + g * 64, scale_row(block, g))
            if has_mins:
                store_f32x16(mins + g * 64, min_row(block, g))

    return coded_header if coded else plain_header


def _make_quantized(name: str, isa: Isa):
    kind = codes.reader(name, isa)
    tile, streams = isa.tile, isa.streams
    pair, header_bytes, group_bytes = kind.pair, kind.header_bytes, kind.group_bytes
    low_pair, two_bytes = kind.low_pair, kind.low_pair is not None
    lines_bytes = 2 * LOW_LINES if two_bytes else LOW_LINES
    if streams > 1:
        matvec, add_tile = make_streams(kind, isa), make_add_tile(kind, isa)
        few, most = make_few(kind, isa, add_tile), FEW
    else:
        matvec, add_tile = make_matvec(kind, operations(isa, 1, kind.codes)), None
        few, most = None, 1
    ops = operations(isa, tile, kind.codes, bias_rows=ROWS)
    tile_step = _make_tile_step(kind, ops, tile, isa.registers < 32)
    header, store_pair = _make_header(kind, ops), ops.store_pair
    last_step = _make_last_step(kind, isa, add_tile)
    tile_bytes = 64 * tile

    @device
    def unpack(block, groups, lines, scales, mins, factors):
        """A super-block as code lines of bytes, and rows of scales and mins."""
        header(block, scales, mins, factors)
        for g in range(groups):
            for i in range(4):
                low, high = pair(block + header_bytes + g * group_bytes, i)
                store_pair(lines + g * 512 + i * 128, low, high)
                if two_bytes:
                    low, high = low_pair(block + header_bytes + g * group_bytes, i)
                    store_pair(lines + LOW_LINES + g * 512 + i * 128, low, high)

    @device
    def panel_times_tokens(block, groups, words, sums, tokens, totals):
        """A panel, whose first super-block is at `block`, x `tokens` tokens into `totals`, f32 [token][16]."""
        lines, parts = stack(lines_bytes), stack(tile_bytes)
        scales, mins, factors = stack(SCALE_ROWS), stack(ROWS), stack(128)
        tiles = (tokens + tile - 1) // tile
        for row in range(0, tiles * tile_bytes, 64):
            store_f32x16(totals + row, zero_f32x16())
        for first in range(0, groups, 8):
            here = min(8, groups - first)
            unpack(block, here, lines, scales, mins, factors)
            size = header_bytes + here * group_bytes
            part = (size // 64 + tiles) // tiles * 64
            for t in range(tiles):
                ahead = block + BLOCKS_AHEAD * size + t * part
                for line in range(ahead, ahead + part, 64):
                    prefetch_l2(line)
                wide = min(tile, rest_width(tokens - t * tile))
                at = t * tile * groups + first * wide
                x, x_sums, total = words + at * 32, sums + at * SUMS_BYTES, totals + t * tile_bytes
                if wide == tile:
                    tile_step(lines, scales, mins, factors, here, x, x_sums, total, parts)
                else:
                    last_step(wide, block, lines, scales, mins, factors, here, x, x_sums, total, parts)
            block += size

    @device
    def panel_bytes(groups):
        return (groups + 7) // 8 * header_bytes + groups * group_bytes

    @device
    def sums_bytes(groups):
        return groups * SUMS_BYTES

    return _make_by_panels(_make_few_tokens(matvec, few, streams), most, panel_times_tokens, panel_bytes, sums_bytes)


def _make_by_rows(bt: BlockType, isa: Isa):
    """`multiply` of a type whose rows have one scale."""
    rows = make_rows(bt, isa)

    @device
    def sums_bytes(groups):
        return ROW_SUMS_BYTES

    few_tokens = _make_few_tokens(rows.matvec, rows.few, isa.streams)
    return _make_by_panels(few_tokens, rows.most, rows.panel_times_tokens, rows.panel_bytes, sums_bytes)


def _make_by_panels(few_tokens, most: int, panel_times_tokens, panel_bytes_of, sums_bytes_of):
    """`multiply` for packed activations: up to `most` tokens by `few_tokens`, more by `panel_times_tokens`.

    `panel_bytes_of(groups)`, `sums_bytes_of(groups)`: of a panel, and of a token's sums, of rows of so many groups.
    """
    totals_bytes = CHUNK * 64

    @device
    def multiply(weights, rows, columns, words, sums, out, stride, count, bias, accumulate, crew):
        totals = stack(totals_bytes)
        groups = columns // 32
        panel_bytes, sums_bytes = panel_bytes_of(groups), sums_bytes_of(groups)
        panels = (rows + 15) // 16
        if count <= most:
            few_tokens(
                weights, panel_bytes, panels, groups, words, sums, out, stride, count, bias, accumulate, totals, crew
            )
            return
        whose, i = crew.thread, -1
        while whose != NOBODY:
            first_panel, last_panel = panels * whose // crew.n_threads, panels * (whose + 1) // crew.n_threads
            each = last_panel - first_panel
            turns = (count + CHUNK - 1) // CHUNK * each
            i = take(crew, whose, i, turns)
            if i == turns:
                whose, i = next_owner(crew, whose), -1
                continue
            first, p = i // each * CHUNK, first_panel + i % each
            tokens = min(CHUNK, count - first)
            panel_times_tokens(
                weights + p * panel_bytes,
                groups,
                words + first * columns,
                sums + first * sums_bytes,
                tokens,
                totals,
            )
            row_bias = bias + p * 64 if bias != 0 else 0
            for t in range(tokens):
                _finish(out + (first + t) * stride + p * 64, load_f32x16(totals + t * 64), row_bias, accumulate)

    return multiply


def _make_float(name: str, isa: Isa):
    load_row, row_bytes = codes.FLOATS[name]
    tile = isa.tile
    ops = operations(isa, tile)
    tile_zero, tile_add_outer, tile_store = ops.tile_zero, ops.tile_add_outer, ops.tile_store
    totals_bytes = max(tile, FLOAT_STREAMS) * 64
    few_tokens = _make_few_tokens(make_float_streams(load_row, row_bytes, isa), None, FLOAT_STREAMS)

    @device
    def multiply(weights, rows, columns, x, x_stride, out, stride, count, bias, accumulate, crew):
        totals = stack(totals_bytes)
        panels, panel_bytes = (rows + 15) // 16, columns * row_bytes
        if count == 1:
            few_tokens(weights, panel_bytes, panels, columns, x, x_stride, out, 0, 1, bias, accumulate, totals, crew)
            return
        whose, i = crew.thread, -1
        while whose != NOBODY:
            first_panel, last_panel = panels * whose // crew.n_threads, panels * (whose + 1) // crew.n_threads
            i = take(crew, whose, i, last_panel - first_panel)
            if i == last_panel - first_panel:
                whose, i = next_owner(crew, whose), -1
                continue
            p = first_panel + i
            panel, row_bias = weights + p * panel_bytes, bias + p * 64 if bias != 0 else 0
            for first in range(0, count, tile):
                source = x + first * x_stride
                total = tile_zero()
                for k in range(columns):
                    total = tile_add_outer(total, load_row(panel + k * row_bytes), source + 4 * k, x_stride)
                tile_store(totals, 64, total)
                for t in range(min(tile, count - first)):
                    _finish(out + (first + t) * stride + p * 64, load_f32x16(totals + t * 64), row_bias, accumulate)

    return multiply
