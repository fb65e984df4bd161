"""Learned position embeddings: the row of a token's position, added to its row."""

import numpy as np

from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_f32, load_i64, store_f32


def make(variant: str, isa: Isa):
    """Argument block: F32 panels [positions, columns], columns, x, x stride, address of the token count, of the first
    position."""

    def kernel(args, thread, n_threads):
        weights, columns = load_i64(args), load_i64(args + 8)
        x, stride = load_i64(args + 16), load_i64(args + 24)
        count, start = load_i64(load_i64(args + 32)), load_i64(load_i64(args + 40))
        for token in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            position, row = start + token, x + token * stride
            source = weights + position // 16 * columns * 64 + position % 16 * 4
            for i in range(columns):
                store_f32(row + 4 * i, load_f32(row + 4 * i) + load_f32(source + 64 * i))

    return kernel


def reference(x: np.ndarray, weights: np.ndarray, start: int) -> np.ndarray:
    """The NumPy twin: x [tokens, columns], weights [positions, columns] -> like x."""
    return x + weights[start : start + len(x)]
