"""LFM2's short convolution: B * x through a causal convolution of a few positions, channel by channel, times C.

The rows of B * x are kept in a ring, as keys and values are, so that a session can be rewound.
"""

import numpy as np

from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64
from edgeq.simd.vector import fma, load_f32x16, mul, store_f32x16, zero_f32x16


def make(variant: str, isa: Isa):
    """Argument block: x (rows of B, C and x, `width` values each), x stride, width, weight (F32 panels [width, taps]),
    taps, bias or 0, kept rows, their number, out, out stride, address of the token count, of the first position.

    Threads share the channels, so that every position a token looks back on was written by the same thread. `width`
    is a multiple of 16.
    """

    def kernel(args, thread, n_threads):
        x, x_stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        weight, taps, bias = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40)
        kept, ring = load_i64(args + 48), load_i64(args + 56)
        out, stride = load_i64(args + 64), load_i64(args + 72)
        count, start = load_i64(load_i64(args + 80)), load_i64(load_i64(args + 88))
        vectors = width // 16
        for vector in range(vectors * thread // n_threads, vectors * (thread + 1) // n_threads):
            at = vector * 64
            panel = weight + vector * taps * 64
            for token in range(count):
                source, position = x + token * x_stride + at, start + token
                place = position % ring
                gated = mul(load_f32x16(source), load_f32x16(source + 8 * width))
                store_f32x16(kept + place * width * 4 + at, gated)
                total = load_f32x16(bias + at) if bias != 0 else zero_f32x16()
                for tap in range(max(0, taps - 1 - position), taps):
                    before = place - (taps - 1) + tap
                    row = kept + (before + ring if before < 0 else before) * width * 4 + at
                    total = fma(load_f32x16(row), load_f32x16(panel + tap * 64), total)
                store_f32x16(out + token * stride + at, mul(total, load_f32x16(source + 4 * width)))

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """The NumPy twin, from position 0 on: x [tokens, 3 * width], weight [width, taps] -> [tokens, width]."""
    before, gate, values = np.split(x.astype(np.float64), 3, axis=1)
    taps = weight.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, before.shape[1])), before * values])
    total = sum(padded[tap : tap + len(x)] * weight[:, tap] for tap in range(taps))
    return ((total if bias is None else total + bias) * gate).astype(np.float32)
