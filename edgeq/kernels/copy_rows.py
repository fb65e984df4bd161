"""Copy the rows of the tokens whose logits are asked for."""

import numpy as np

from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64
from edgeq.simd.vector import load_f32x16, store_f32x16


def make(variant: str, isa: Isa):
    """Argument block: x, x stride, width, out, out stride, address of the first row, address of the row count."""

    def kernel(args, thread, n_threads):
        x, x_stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        out, out_stride = load_i64(args + 24), load_i64(args + 32)
        first, count = load_i64(load_i64(args + 40)), load_i64(load_i64(args + 48))
        for row in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            source, target = x + (first + row) * x_stride, out + row * out_stride
            for i in range(0, width, 16):
                store_f32x16(target + 4 * i, load_f32x16(source + 4 * i))

    return kernel


def reference(x: np.ndarray, first: int, count: int) -> np.ndarray:
    """The NumPy twin."""
    return x[first : first + count].copy()
