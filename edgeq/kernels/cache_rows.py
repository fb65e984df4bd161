"""Write keys and values into the KV cache, laid out for attention's vectors.

Keys [kv head][place / 16][head_dim][16 places], values [kv head][head_dim / 16][place][16], as f16, f32 or q8_0. The
cache is a ring of `ring` places, a multiple of 16: position p has place p % ring.

q8_0 is GGUF's: 32 values of a head share the f16 scale max |x| / 127. The scales of a key panel follow its codes, as
[head_dim / 32][16 places]; those of a value head follow its columns, as [head_dim / 32][place].
"""

import numpy as np

from edgeq.kernels.layout import KV_BYTES
from edgeq.simd.memory import load_f32, store_f16, store_f32, store_u8
from edgeq.simd.vector import device


def make_keep_rows(kind: str):
    """`keep_key(source, keys, head, head_dim, ring, place)` and `keep_value` alike: a head's f32 row at `source` into
    the cache of elements `kind`."""
    return _make_keep_q8_0() if kind == "q8_0" else _make_keep_float(kind)


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
