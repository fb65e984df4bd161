"""Attention within one block of positions: scores, softmax, weighted values, and how blocks' results are merged.

`make_pieces` gives what an item of `attention` is made of, for register tiles of `width` rows (query heads, of one or
several tokens, that share a key/value head). Keys lie in panels of 16 positions, so a score vector is 16 positions and
needs no horizontal sum; values lie in columns of 16, so an output vector is 16 values.
"""

from types import SimpleNamespace

import numpy as np

from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
from edgeq.kernels.layout import KV_BYTES
from edgeq.simd.exp import exp2_of_nonpositive, tanh
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_f16, load_f32, prefetch, stack, store_f32
from edgeq.simd.tiles import operations
from edgeq.simd.vector import (
    absolute,
    add,
    counting_f32x16,
    device,
    fma,
    larger,
    load_f16x16,
    load_f32x16,
    load_i8x16,
    max_f32,
    mul,
    select_below,
    splat_f32,
    store_f32x16,
    sub,
    sum_f32,
    transpose_f32,
    zero_f32x16,
)

LOWEST = np.float32(-np.inf)
LOG2_E = np.float32(1.4426950408889634)
SCORES_ROW = 4 * BLOCK  # bytes of one row's scores
_SPAN = 64  # positions whose values are widened at once: 4 KiB of L1
_AHEAD = 4096  # bytes asked for ahead: hardware prefetchers stop at the end of a page


@device
def cap_scores(scores, begin, end, cap):
    """cap * tanh(score / cap) of block positions [begin, end) in place; `begin` counts from a multiple of 16."""
    for j in range(begin // 16 * 16, end, 16):
        capped = tanh(mul(load_f32x16(scores + 4 * j), splat_f32(np.float32(1.0) / cap)))
        store_f32x16(scores + 4 * j, mul(capped, splat_f32(cap)))


@device
def lower_by_distance(scores, begin, end, slope, here):
    """Take slope * |j - here| off the scores of block positions j in [begin, end), in place; `begin` counts from a
    multiple of 16."""
    for j in range(begin // 16 * 16, end, 16):
        distances = absolute(add(counting_f32x16(), splat_f32(np.float32(j - here))))
        store_f32x16(scores + 4 * j, fma(distances, splat_f32(-slope), load_f32x16(scores + 4 * j)))


@device
def add_by_distance(scores, begin, end, first):
    """Add what stands from `first` on, for block position 0 and those that follow, to positions [begin, end) in place;
    `begin` counts from a multiple of 16."""
    for j in range(begin // 16 * 16, end, 16):
        store_f32x16(scores + 4 * j, add(load_f32x16(scores + 4 * j), load_f32x16(first + 4 * j)))


@device
def softmax(scores, begin, end, low, high, at):
    """Scores of block positions [low, high) become 2**(score - max), those around them in [begin, end) zero.

    Writes max and sum at `at` and `at` + 4. `begin` counts from a multiple of 16.
    """
    base = begin // 16 * 16
    largest = splat_f32(LOWEST)
    for j in range(base, end, 16):
        row = load_f32x16(scores + 4 * j)
        if j < low or j + 16 > high:
            row = select_below(high - j, row, splat_f32(LOWEST))
            row = select_below(low - j, splat_f32(LOWEST), row)
            store_f32x16(scores + 4 * j, row)
        largest = larger(largest, row)
    top = max_f32(largest)
    total = zero_f32x16()
    for j in range(base, end, 16):
        row = exp2_of_nonpositive(sub(load_f32x16(scores + 4 * j), splat_f32(top)))
        if j < low or j + 16 > high:
            row = select_below(high - j, row, zero_f32x16())
            row = select_below(low - j, zero_f32x16(), row)
        store_f32x16(scores + 4 * j, row)
        total = add(total, row)
    store_f32(at, top)
    store_f32(at + 4, sum_f32(total))


def _make_rows_float(kind: str):
    """Rows of 16 f16 or f32, as f32; they have no scales."""
    element = KV_BYTES[kind]
    load_row = {"f16": load_f16x16, "f32": load_f32x16}[kind]

    @device
    def no_scale(at, i):
        return np.float32(1.0)

    @device
    def row(at, scale):
        prefetch(at + _AHEAD)
        return load_row(at)

    return element * 16, no_scale, no_scale, row


def _make_rows_q8_0():
    """Rows of 16 int8 as f32, times their scales: of 16 positions for keys, of one for values (see cache_rows.py)."""

    @device
    def key_scale(at, i):
        return load_f16x16(at + i)

    @device
    def value_scale(at, i):
        return splat_f32(load_f16(at + 2 * i))

    @device
    def row(at, scale):
        prefetch(at + _AHEAD)
        return mul(load_i8x16(at), scale)

    return 16, key_scale, value_scale, row


def make_pieces(isa: Isa, width: int, kind: str) -> SimpleNamespace:
    """What an item is made of, for register tiles of `width` rows over a cache of `kind` elements."""
    row_bytes, key_scale, value_scale, row = _make_rows_q8_0() if kind == "q8_0" else _make_rows_float(kind)
    ops = operations(isa, width)
    tile_zero, tile_add_outer = ops.tile_zero, ops.tile_add_outer
    tile_load, tile_store = ops.tile_load, ops.tile_store
    tile_bytes = 64 * width

    @device
    def pack(q, q_stride, head_dim, rows, group, scale, queries):
        """Rows of q as [tile][head_dim][width] f32, times `scale`; rows that fill the last tile are zero."""
        for r in range((rows + width - 1) // width * width):
            token = r // group
            source = q + token * q_stride + (r - token * group) * head_dim * 4
            target = queries + (r // width * head_dim * width + r % width) * 4
            for d in range(head_dim):
                value = load_f32(source + 4 * d) * scale if r < rows else np.float32(0.0)
                store_f32(target + d * width * 4, value)

    @device
    def scores_of(queries, tiles, keys, position_bytes, head_dim, begin, end, scores, wide):
        """q . k for block positions [begin, end), begin rounded down to 16: [row][BLOCK]."""
        for j in range(begin // 16 * 16, end, 16):
            panel = keys + j * position_bytes
            tile = tile_zero()
            for first in range(0, head_dim, 32):
                scale = key_scale(panel + head_dim * 16, first)
                for d in range(first, min(head_dim, first + 32)):
                    key = row(panel + d * row_bytes, scale)
                    if tiles > 1:
                        store_f32x16(wide + d * 64, key)
                    tile = tile_add_outer(tile, key, queries + d * 4 * width, 4)
            tile_store(scores + 4 * j, SCORES_ROW, tile)
            for t in range(1, tiles):
                tile = tile_zero()
                query = queries + t * head_dim * 4 * width
                for d in range(head_dim):
                    tile = tile_add_outer(tile, load_f32x16(wide + d * 64), query + d * 4 * width, 4)
                tile_store(scores + t * width * SCORES_ROW + 4 * j, SCORES_ROW, tile)

    @device
    def weighted_values(weights, tiles, values, scales, ring, columns, begin, end, sums, wide):
        """Sum of weight[position] * value[position] over [begin, end): [tile][column][width][16]."""
        for c in range(columns):
            for first in range(begin, end, _SPAN):
                last = min(end, first + _SPAN)
                at = values + (c * ring + first) * row_bytes
                scale_at = scales + 2 * (c // 2 * ring + first)
                tile = tile_load(sums + c * tile_bytes, 64) if first > begin else tile_zero()
                for p in range(last - first):
                    value = row(at + p * row_bytes, value_scale(scale_at, p))
                    if tiles > 1:
                        store_f32x16(wide + p * 64, value)
                    tile = tile_add_outer(tile, value, weights + 4 * (first + p), SCORES_ROW)
                tile_store(sums + c * tile_bytes, 64, tile)
                for t in range(1, tiles):
                    at = sums + (t * columns + c) * tile_bytes
                    weight = weights + t * width * SCORES_ROW
                    tile = tile_load(at, 64) if first > begin else tile_zero()
                    for p in range(first, last):
                        tile = tile_add_outer(tile, load_f32x16(wide + (p - first) * 64), weight + 4 * p, SCORES_ROW)
                    tile_store(at, 64, tile)

    @device
    def weighted_latents(weights, tiles, keys, position_bytes, head_dim, columns, begin, end, sums, wide):
        """As `weighted_values`, of values that keys begin with: of each panel 16 values are turned at a time."""
        rows = stack(1024)
        for c in range(columns):
            for first in range(begin // 16 * 16, end, _SPAN):
                last = min(end, first + _SPAN)
                for j in range(first, last, 16):
                    panel = keys + j * position_bytes
                    scale = key_scale(panel + head_dim * 16, c // 2 * 32)
                    for d in range(16):
                        store_f32x16(rows + d * 64, row(panel + (c * 16 + d) * row_bytes, scale))
                    transpose_f32(rows, wide + (j - first) * 64)
                for t in range(tiles):
                    at = sums + (t * columns + c) * tile_bytes
                    weight = weights + t * width * SCORES_ROW
                    tile = tile_load(at, 64) if first > begin else tile_zero()
                    for p in range(max(first, begin), last):
                        tile = tile_add_outer(tile, load_f32x16(wide + (p - first) * 64), weight + 4 * p, SCORES_ROW)
                    tile_store(at, 64, tile)

    @device
    def merge(sums, peaks, rows, columns, totals, tops):
        """Add a block's partial results (sums; max and sum in `peaks`) to the rows' totals; rows without any: l = 0."""
        for r in range(rows):
            if load_f32(peaks + 8 * r + 4) == np.float32(0.0):
                continue
            before, here = load_f32(tops + 8 * r), load_f32(peaks + 8 * r)
            top = before if before > here else here
            old = exp2_of_nonpositive(sub(splat_f32(before), splat_f32(top)))
            new = exp2_of_nonpositive(sub(splat_f32(here), splat_f32(top)))
            store_f32(tops + 8 * r, top)
            kept = mul(splat_f32(load_f32(tops + 8 * r + 4)), old)
            store_f32(tops + 8 * r + 4, max_f32(fma(splat_f32(load_f32(peaks + 8 * r + 4)), new, kept)))
            at = r // width * columns * tile_bytes + r % width * 64
            for c in range(at, at + columns * tile_bytes, tile_bytes):
                total = mul(load_f32x16(totals + c), old)
                store_f32x16(totals + c, fma(load_f32x16(sums + c), new, total))

    return SimpleNamespace(
        pack=pack,
        scores_of=scores_of,
        weighted_values=weighted_values,
        weighted_latents=weighted_latents,
        merge=merge,
    )
