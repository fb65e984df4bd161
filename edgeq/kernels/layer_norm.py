"""Layer norm, written as f32 rows and, where a quantized matrix follows, as packed int8 activations too."""

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
    select_below,
    splat_f32,
    sqrt_f32,
    sub,
    sum_f32,
    zero_f32x16,
)


@device
def _mean(x, width):
    total = zero_f32x16()
    for i in range(0, width, 16):
        total = add(total, select_below(width - i, load_f32x16(x + 4 * i), zero_f32x16()))
    return sum_f32(total) / np.float32(width)


@device
def _variance(x, width, mean):
    total = zero_f32x16()
    for i in range(0, width, 16):
        away = select_below(width - i, sub(load_f32x16(x + 4 * i), splat_f32(mean)), zero_f32x16())
        total = fma(away, away, total)
    return sum_f32(total) / np.float32(width)


def make(variant: str, isa: Isa):
    """Argument block: x, x stride, width, weight, bias (or 0), eps (f32 bits), out (or 0), out stride, words (or 0),
    sums, address of the token count.

    Rows, weight and bias are padded with zeros to 32 columns. Threads share the groups of 32 columns, each measuring
    the rows it meets for itself: cheaper than a barrier.
    """
    keep = make_keep(isa.tile)

    @device
    def normalized(x, weight, bias, mean, factor):
        value = mul(mul(sub(load_f32x16(x), mean), factor), load_f32x16(weight))
        return add(value, load_f32x16(bias)) if bias != 0 else value

    def kernel(args, thread, n_threads):
        x, x_stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        weight, bias, eps = load_i64(args + 24), load_i64(args + 32), bits_f32(load_i64(args + 40))
        out, out_stride = load_i64(args + 48), load_i64(args + 56)
        words, sums = load_i64(args + 64), load_i64(args + 72)
        count = load_i64(load_i64(args + 80))
        groups = (width + 31) // 32
        known = -1
        mean = splat_f32(np.float32(0.0))
        factor = splat_f32(np.float32(0.0))
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            row = x + token * x_stride
            if token != known:
                middle = _mean(row, width)
                mean = splat_f32(middle)
                factor = splat_f32(np.float32(1.0) / sqrt_f32(_variance(row, width, middle) + eps))
                known = token
            at, low_bias = group * 128, bias + group * 128 if bias != 0 else 0
            low = normalized(row + at, weight + at, low_bias, mean, factor)
            at, high_bias = at + 64, low_bias + 64 if bias != 0 else 0
            high = normalized(row + at, weight + at, high_bias, mean, factor)
            target = out + token * out_stride + group * 128 if out != 0 else 0
            keep(low, high, target, words, sums, token, group, groups, count)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, eps: float) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 -> [tokens, width] f32."""
    wide = x.astype(np.float64)
    wide = wide - wide.mean(axis=1, keepdims=True)
    result = wide / np.sqrt((wide * wide).mean(axis=1, keepdims=True) + eps) * weight
    return (result if bias is None else result + bias).astype(np.float32)
