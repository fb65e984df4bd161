"""Rotary position embedding, and the KV cache's newest entries.

Rotates q in place, and writes rotated k and v into the layer's cache, laid out for attention's vectors: keys
[kv head][place / 16][head_dim][16 places], values [kv head][head_dim / 16][place][16], as f16, f32 or q8_0. The cache
is a ring of `ring` places, a multiple of 16: position p has place p % ring.

q8_0 is GGUF's: 32 values of a head share the f16 scale max |x| / 127. The scales of a key panel follow its codes, as
[head_dim / 32][16 places]; those of a value head follow its columns, as [head_dim / 32][place].
"""

import numpy as np

from edgeq.kernels.layout import KV_BYTES
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_f32, load_i64, store_f16, store_f32, store_u8
from edgeq.simd.vector import device


@device
def _rotate(x, table, half, interleaved):
    """Rotate one head at `x`; `table` holds cos[half], sin[half] of this position."""
    for i in range(half):
        first = x + (8 * i if interleaved != 0 else 4 * i)
        second = first + (4 if interleaved != 0 else 4 * half)
        a, b = load_f32(first), load_f32(second)
        c, s = load_f32(table + 4 * i), load_f32(table + 4 * (half + i))
        store_f32(first, a * c - b * s)
        store_f32(second, b * c + a * s)


def _make_keep_float(kind: str):
    element = KV_BYTES[kind]
    store = {"f16": store_f16, "f32": store_f32}[kind]

    @device
    def keep_key(source, keys, head, head_dim, ring, place):
        at = (head * (ring // 16) + place // 16) * head_dim * 16 + place % 16
        for d in range(head_dim):
            store(keys + (at + d * 16) * element, load_f32(source + 4 * d))

    @device
    def keep_value(source, values, head, head_dim, ring, place):
        blocks = (head_dim + 15) // 16
        for d in range(head_dim):
            at = ((head * blocks + d // 16) * ring + place) * 16 + d % 16
            store(values + at * element, load_f32(source + 4 * d))

    return keep_key, keep_value


def _make_keep_q8_0():
    @device
    def largest_of(source, count):
        """The largest |x|; NaN if any is."""
        largest = np.float32(0.0)
        for d in range(count):
            value = abs(load_f32(source + 4 * d))
            if not value <= largest:
                largest = value
                if value != value:
                    break
        return largest

    @device
    def code(value, largest):
        """round(x / scale) as the bits of an int8, halves away from zero, as GGUF's reference does."""
        if not largest > np.float32(0.0):
            return 0
        scaled = value * (np.float32(1.0) / (largest / np.float32(127.0)))
        return int(scaled + np.float32(0.5)) if scaled >= np.float32(0.0) else int(scaled - np.float32(0.5))

    @device
    def keep_key(source, keys, head, head_dim, ring, place):
        groups = (head_dim + 31) // 32
        panel = keys + (head * (ring // 16) + place // 16) * 16 * (head_dim + 2 * groups)
        lane = place % 16
        for g in range(groups):
            count = min(32, head_dim - 32 * g)
            largest = largest_of(source + 128 * g, count)
            store_f16(panel + head_dim * 16 + (g * 16 + lane) * 2, largest / np.float32(127.0))
            for d in range(32 * g, 32 * g + count):
                store_u8(panel + d * 16 + lane, code(load_f32(source + 4 * d), largest))

    @device
    def keep_value(source, values, head, head_dim, ring, place):
        groups, blocks = (head_dim + 31) // 32, (head_dim + 15) // 16
        codes = values + head * ring * (16 * blocks + 2 * groups)
        scales = codes + ring * 16 * blocks
        for g in range(groups):
            count = min(32, head_dim - 32 * g)
            largest = largest_of(source + 128 * g, count)
            store_f16(scales + (g * ring + place) * 2, largest / np.float32(127.0))
            for d in range(32 * g, 32 * g + count):
                store_u8(codes + (d // 16 * ring + place) * 16 + d % 16, code(load_f32(source + 4 * d), largest))

    return keep_key, keep_value


def make(variant: str, isa: Isa):
    """Argument block: q, q stride, k, v, stride of k and v, query heads, kv heads, head_dim, tables, half, interleaved,
    keys, values, ring, address of the token count, address of the first position."""
    keep_key, keep_value = _make_keep_q8_0() if variant == "q8_0" else _make_keep_float(variant)

    def kernel(args, thread, n_threads):
        q, q_stride = load_i64(args), load_i64(args + 8)
        k, v, kv_stride = load_i64(args + 16), load_i64(args + 24), load_i64(args + 32)
        heads, kv_heads, head_dim = load_i64(args + 40), load_i64(args + 48), load_i64(args + 56)
        tables, half, interleaved = load_i64(args + 64), load_i64(args + 72), load_i64(args + 80)
        keys, values, ring = load_i64(args + 88), load_i64(args + 96), load_i64(args + 104)
        count, start = load_i64(load_i64(args + 112)), load_i64(load_i64(args + 120))
        every = heads + 2 * kv_heads
        for item in range(count * every * thread // n_threads, count * every * (thread + 1) // n_threads):
            token = item // every
            head = item - token * every
            position = start + token
            table = tables + position * half * 8
            if head < heads:
                _rotate(q + token * q_stride + head * head_dim * 4, table, half, interleaved)
            elif head < heads + kv_heads:
                source = k + token * kv_stride + (head - heads) * head_dim * 4
                _rotate(source, table, half, interleaved)
                keep_key(source, keys, head - heads, head_dim, ring, position % ring)
            else:
                head -= heads + kv_heads
                keep_value(v + token * kv_stride + head * head_dim * 4, values, head, head_dim, ring, position % ring)

    return kernel


def reference(x: np.ndarray, table: np.ndarray, interleaved: bool) -> np.ndarray:
    """The NumPy twin: rotate [tokens, heads, head_dim] f32 by `table` [tokens, 2, half]."""
    half = table.shape[2]
    cos, sin = table[:, None, 0], table[:, None, 1]
    result = x.copy()
    a, b = (
        (x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2])
        if interleaved
        else (x[..., :half], x[..., half : 2 * half])
    )
    first, second = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        result[..., 0 : 2 * half : 2], result[..., 1 : 2 * half : 2] = first, second
    else:
        result[..., :half], result[..., half : 2 * half] = first, second
    return result
