"""Causal grouped-query attention over the KV cache.

A tile of H query heads of one key/value head shares every read of the cache. Keys lie in panels of 16 positions, so a
score vector is 16 positions and needs no horizontal sum; values lie in columns of 16, so an output vector is 16
values. Every (token, head) is computed alone and in position order: results do not depend on threads or batches.
"""

import numpy as np

from edgeq.kernels.layout import KV_BYTES
from edgeq.simd.isa import Isa
from edgeq.simd.memory import bits_f32, load_f32, load_i64, stack, store_f32
from edgeq.simd.tiles import operations
from edgeq.simd.vector import (
    add,
    device,
    exp,
    load_f16x16,
    load_f32x16,
    max_f32,
    maximum,
    mul,
    select_below,
    splat_f32,
    store_f32x16,
    sub,
    sum_f32,
    zero_f32x16,
)

_LOWEST = np.float32(-np.inf)


@device
def _softmax(scores, first, last, scale):
    """exp(scale * (score - max)) of positions [first, last) in place, zero around them; returns the sum.

    `scores` starts at position first rounded down to 16.
    """
    base = first // 16 * 16
    largest = splat_f32(_LOWEST)
    for j in range(base, last, 16):
        at = scores + (j - base) * 4
        row = select_below(last - j, load_f32x16(at), splat_f32(_LOWEST))
        row = select_below(first - j, splat_f32(_LOWEST), row)
        row = mul(row, splat_f32(scale))
        store_f32x16(at, row)
        largest = maximum(largest, row)
    top = splat_f32(max_f32(largest))
    total = zero_f32x16()
    for j in range(base, last, 16):
        at = scores + (j - base) * 4
        row = exp(sub(load_f32x16(at), top))
        store_f32x16(at, row)
        total = add(total, row)
    return sum_f32(total)


def make(variant: str, isa: Isa):
    """`variant` is `H-f16` or `H-f32`: query heads per tile and the cache's element.

    Argument block: q, q stride, out, out stride, query heads, kv heads, head_dim, keys, values, context, scale
    (f32 bits), window or 0, scratch for scores (H x context f32 per thread), token count and first position addresses.
    """
    width_text, kind = variant.split("-")
    width, element = int(width_text), KV_BYTES[kind]
    load_row = {"f16": load_f16x16, "f32": load_f32x16}[kind]
    ops = operations(isa, width)
    tile_zero, tile_add_outer, tile_store = ops.tile_zero, ops.tile_add_outer, ops.tile_store

    @device
    def scores_of(q, q_step, keys, head_dim, first, last, scores, context):
        """q . k of positions first (rounded down to 16) to last, for the tile's heads."""
        base = first // 16 * 16
        for j in range(base, last, 16):
            panel = keys + j * head_dim * element
            tile = tile_zero()
            for d in range(head_dim):
                tile = tile_add_outer(tile, load_row(panel + d * 16 * element), q + 4 * d, q_step)
            tile_store(scores + (j - base) * 4, context * 4, tile)

    @device
    def weighted_values(column, first, last, weights, context, rows):
        """Sum of weight[position] * value[position] over 16 values, for the tile's heads."""
        base = first // 16 * 16
        tile = tile_zero()
        for j in range(first, last):
            tile = tile_add_outer(tile, load_row(column + j * 16 * element), weights + (j - base) * 4, context * 4)
        tile_store(rows, 64, tile)

    tile_bytes = width * 64

    def kernel(args, thread, n_threads):
        q, q_stride, out, out_stride = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        heads, kv_heads, head_dim = load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
        keys, values, context = load_i64(args + 56), load_i64(args + 64), load_i64(args + 72)
        scale, window = bits_f32(load_i64(args + 80)), load_i64(args + 88)
        scores = load_i64(args + 96) + thread * width * context * 4
        count, start = load_i64(load_i64(args + 104)), load_i64(load_i64(args + 112))
        group = heads // kv_heads
        tiles = (group + width - 1) // width
        columns = (head_dim + 15) // 16
        rows = stack(tile_bytes)
        every = kv_heads * tiles
        for item in range(count * every * thread // n_threads, count * every * (thread + 1) // n_threads):
            token = item // every
            kv_head = (item - token * every) // tiles
            # the last tile of a group that does not divide evenly overlaps the one before
            head = kv_head * group + min((item % tiles) * width, group - width)
            last = start + token + 1
            first = max(0, last - window) if window != 0 else 0
            head_keys = keys + kv_head * context * head_dim * element
            scores_of(
                q + token * q_stride + head * head_dim * 4,
                head_dim * 4,
                head_keys,
                head_dim,
                first,
                last,
                scores,
                context,
            )
            inverse = stack(64)
            for h in range(width):
                total = _softmax(scores + h * context * 4, first, last, scale)
                store_f32(inverse + 4 * h, np.float32(1.0) / total)
            for c in range(columns):
                column = values + ((kv_head * columns + c) * context) * 16 * element
                weighted_values(column, first, last, scores, context, rows)
                for h in range(width):
                    target = out + token * out_stride + ((head + h) * head_dim + c * 16) * 4
                    for d in range(min(16, head_dim - c * 16)):
                        store_f32(target + 4 * d, load_f32(rows + h * 64 + 4 * d) * load_f32(inverse + 4 * h))

    return kernel


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, start: int, window: int = 0) -> np.ndarray:
    """The NumPy twin: q [tokens, heads, head_dim], k and v [positions, kv heads, head_dim] -> like q.

    Token t stands at position start + t and sees positions up to its own, the last `window` of them if not 0.
    """
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    result = np.zeros_like(q)
    for t in range(tokens):
        last = start + t + 1
        first = max(0, last - window) if window else 0
        for h in range(heads):
            keys, values = k[first:last, h // group].astype(np.float64), v[first:last, h // group].astype(np.float64)
            scores = keys @ q[t, h].astype(np.float64) / np.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            result[t, h] = weights @ values / weights.sum()
    return result
