"""Several panels times one token, read from as many places of memory: what `matvec` does, four at a time.

Memory gives more to several streams than to one. A group of all panels is multiplied at once
(`simd/panel_dots.py`): fewer instructions wait for memory, and the core looks further ahead.
"""

from types import SimpleNamespace

from edgeq.kernels.codes import SCRATCH
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.kernels.matvec import HIGH, LOW, half_sum
from edgeq.simd.isa import Isa
from edgeq.simd.memory import prefetch_l2, stack, store_f32
from edgeq.simd.panel_dots import make_dots, rows_of_panels
from edgeq.simd.target import outlined
from edgeq.simd.tiles import operations
from edgeq.simd.vector import device, load_u8x16, splat_f32, u8x16_to_f32

FLOAT_STREAMS = 4  # of plain numbers, on every CPU: a panel alone waits for its own sums
# Bytes asked for ahead, in each stream, as hardware prefetchers stop at the end of a page. Into the second cache:
# requests for the first one take the few places where its misses wait, and cost a fifth of the bandwidth of one thread
# (Zen 4). Every line: of every other one Zen 3 does not complete the rest in time, which cost a third.
AHEAD, STEP = 768, 64


def make_streams(kind: SimpleNamespace, isa: Isa):
    """`matvec(panel, apart, groups, words, sums, totals)`: `isa.streams` panels, `apart` bytes apart, times one token
    into `totals`, f32 [stream][16]."""
    streams, ops = isa.streams, operations(isa, 1, kind.codes, isa.streams)
    zero, store = ops.tile_zero, ops.tile_store
    header_bytes, group_bytes = kind.header_bytes, kind.group_bytes
    dots = make_dots(isa, streams, kind.codes, kind.pair, range(AHEAD, AHEAD + group_bytes, STEP))
    add_block = make_add_block(kind, isa, dots, streams, 1)

    @outlined
    def matvec(panel, apart, groups, words, sums, totals):
        store(totals, 64, zero())
        for first in range(0, groups, 8):
            here = min(8, groups - first)
            for s in range(streams):
                for line in range(0, header_bytes, STEP):
                    prefetch_l2(panel + s * apart + AHEAD + line)
            add_block(panel, apart, here, words, sums, totals)
            panel += header_bytes + here * group_bytes
            words += 32 * here
            sums += SUMS_BYTES * here

    return matvec


def make_add_block(kind: SimpleNamespace, isa: Isa, dots, streams: int, tokens: int):
    """`add_block(block, apart, groups, words, sums, totals)`: a super-block of every panel times `tokens` tokens, added
    to `totals`, f32 [stream][token][16]; `dots` are those of a group."""
    ops = operations(isa, tokens, kind.codes, streams)
    if kind.codes.coded:
        return _make_coded(kind, ops, dots, streams, tokens)
    return _make_plain(kind, isa, ops, dots, streams, tokens)


def _make_plain(kind: SimpleNamespace, isa: Isa, ops: SimpleNamespace, dots, streams: int, tokens: int):
    """`add_block` where groups have their scales."""
    header_bytes, group_bytes, has_mins, row = kind.header_bytes, kind.group_bytes, kind.has_mins, 4 * tokens
    zero, load, store, fma = ops.tile_zero, ops.tile_load, ops.tile_store, ops.tile_fma
    add_scaled, add_outer, two_bytes = ops.tile_add_scaled, ops.tile_add_outer, kind.low_pair is not None
    scales = rows_of_panels(streams, kind.scale_row)
    mins = rows_of_panels(streams, kind.min_row) if has_mins else None
    low_dots = make_dots(isa, streams, kind.codes, kind.low_pair, range(0), tokens) if two_bytes else None

    @device
    def add_block(block, apart, groups, words, sums, totals):
        group = block + header_bytes
        for g in range(groups):
            scale = scales(block, apart, g)
            part = fma(dots(group, apart, words, sums, 0, 0), scale, zero())
            if two_bytes:
                low = fma(low_dots(group, apart, words, sums, 0, 0), scale, zero())
                part = fma(part, splat_f32(HIGH), fma(low, splat_f32(LOW), zero()))
            total = add_scaled(load(totals, 64), part, sums)
            if has_mins:
                total = add_outer(total, mins(block, apart, g), sums + row, 4)
            store(totals, 64, total)
            group += group_bytes
            words += 32 * tokens
            sums += SUMS_BYTES * tokens

    return add_block


def _make_coded(kind: SimpleNamespace, ops: SimpleNamespace, dots, streams: int, tokens: int):
    """`add_block` where scales are codes."""
    header_bytes, group_bytes, has_mins, halves = kind.header_bytes, kind.group_bytes, kind.has_mins, kind.codes.halves
    zero, load, store, fma = ops.tile_zero, ops.tile_load, ops.tile_store, ops.tile_fma
    add_scaled, add_outer = ops.tile_add_scaled, ops.tile_add_outer
    scale_codes, factors = kind.scale_codes, kind.factors
    scale_bytes, rows = 32 if halves else 16, 2 if halves else 1
    scratch_bytes, parts_bytes, row = SCRATCH * streams, 64 * streams * tokens, 4 * tokens

    @device
    def d_row(block, unused):
        return factors(block)[0]

    @device
    def dmin_row(block, unused):
        return factors(block)[1]

    @device
    def min_row(mins, row):
        return u8x16_to_f32(load_u8x16(mins + row * 16))

    d, dmin, min_rows = (rows_of_panels(streams, row) for row in (d_row, dmin_row, min_row))

    @device
    def add_mins(mins, apart, groups, sums):
        """The mins of a super-block, in units of its -dmin."""
        least, half_sums = zero(), stack(row)
        for g in range(groups):
            for i in range(rows):
                if halves:
                    for t in range(tokens):
                        store_f32(half_sums + 4 * t, half_sum(sums + 4 * t, row, i))
                    least = add_outer(least, min_rows(mins, apart, rows * g + i), half_sums, 4)
                else:
                    least = add_outer(least, min_rows(mins, apart, g), sums + row, 4)
            sums += SUMS_BYTES * tokens
        return least

    @device
    def add_block(block, apart, groups, words, sums, totals):
        scratch, parts = stack(scratch_bytes), stack(parts_bytes)
        scales, mins = scale_codes(block, scratch)
        next_scales, next_mins = scales, mins
        for s in range(1, streams):
            at, at_mins = scale_codes(block + s * apart, scratch + s * SCRATCH)
            if s == 1:
                next_scales, next_mins = at, at_mins
        group, first, codes = block + header_bytes, sums, scales
        store(parts, 64, zero())
        for _ in range(groups):
            dot = dots(group, apart, words, sums, codes, next_scales - scales)
            store(parts, 64, add_scaled(load(parts, 64), dot, sums))
            group += group_bytes
            codes += scale_bytes
            words += 32 * tokens
            sums += SUMS_BYTES * tokens
        total = fma(load(parts, 64), d(block, apart, 0), load(totals, 64))
        if has_mins:
            total = fma(add_mins(mins, next_mins - mins, groups, first), dmin(block, apart, 0), total)
        store(totals, 64, total)

    return add_block


def make_float_streams(load_row, row_bytes: int, isa: Isa):
    """`matvec(panel, apart, columns, x, unused, totals)`: FLOAT_STREAMS panels of plain numbers times a row of f32."""
    ops = operations(isa, 1, panels=FLOAT_STREAMS)
    zero, store, add_outer = ops.tile_zero, ops.tile_store, ops.tile_add_outer

    @device
    def row_of(panel, unused):
        return load_row(panel)

    rows = rows_of_panels(FLOAT_STREAMS, row_of)

    @device
    def matvec(panel, apart, columns, x, unused, totals):
        total = zero()
        for k in range(columns):
            total = add_outer(total, rows(panel + k * row_bytes, apart, 0), x + 4 * k, 4)
        store(totals, 64, total)

    return matvec
