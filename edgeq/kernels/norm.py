"""RMS norm, written as f32 rows and, where a quantized matrix follows, as packed int8 activations in the same pass."""

import numpy as np

from edgeq.kernels.quantize import make_keep
from edgeq.simd.isa import Isa
from edgeq.simd.memory import bits_f32, load_i64
from edgeq.simd.vector import (
    add,
    device,
    fma,
    load_f32x16,
    mul,
    splat_f32,
    sqrt_f32,
    sum_f32,
    zero_f32x16,
)


@device
def _sum_of_squares(x, padded):
    total = zero_f32x16()
    for i in range(0, padded, 16):
        value = load_f32x16(x + 4 * i)
        total = fma(value, value, total)
    return sum_f32(total)


def make(variant: str, isa: Isa):
    """`variant` is empty, or `add` to add the result to what `out` holds.

    Argument block: x, x stride, width, weight, eps (f32 bits), out (or 0), out stride, words (or 0), sums,
    address of the token count.

    Rows are padded with zeros to 32 columns. Threads share the groups of 32 columns, each summing the squares of the
    rows it meets for itself: cheaper than a barrier.
    """
    keep, adds = make_keep(isa.tile), variant == "add"

    def kernel(args, thread, n_threads):
        x, x_stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        weight, eps = load_i64(args + 24), bits_f32(load_i64(args + 32))
        out, out_stride = load_i64(args + 40), load_i64(args + 48)
        words, sums = load_i64(args + 56), load_i64(args + 64)
        count = load_i64(load_i64(args + 72))
        groups = (width + 31) // 32
        known = -1
        factor = splat_f32(np.float32(0.0))
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            if token != known:
                mean = _sum_of_squares(x + token * x_stride, groups * 32) / np.float32(width)
                factor = splat_f32(np.float32(1.0) / sqrt_f32(mean + eps))
                known = token
            source = x + token * x_stride + group * 128
            low = mul(mul(load_f32x16(source), factor), load_f32x16(weight + group * 128))
            high = mul(mul(load_f32x16(source + 64), factor), load_f32x16(weight + group * 128 + 64))
            target = out + token * out_stride + group * 128 if out != 0 else 0
            if adds:
                low, high = add(load_f32x16(target), low), add(load_f32x16(target + 64), high)
            keep(low, high, target, words, sums, token, group, groups, count)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 -> [tokens, width] f32."""
    wide = x.astype(np.float64)
    scale = 1.0 / np.sqrt((wide * wide).mean(axis=1, keepdims=True) + eps)
    return (wide * scale * weight).astype(np.float32)
