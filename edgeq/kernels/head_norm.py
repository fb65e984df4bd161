"""RMS norm of every head by itself, in place: what Qwen3 and Gemma 3 do to queries and keys."""

import numpy as np

from edgeq.simd.isa import Isa
from edgeq.simd.memory import bits_f32, load_f32, load_i64, store_f32
from edgeq.simd.vector import device, fma, load_f32x16, mul, splat_f32, sqrt_f32, store_f32x16, sum_f32, zero_f32x16


@device
def _norm(x, head_dim, weight, eps):
    whole = head_dim // 16 * 16
    total = zero_f32x16()
    for i in range(0, whole, 16):
        value = load_f32x16(x + 4 * i)
        total = fma(value, value, total)
    squares = sum_f32(total)
    for i in range(whole, head_dim):
        squares += load_f32(x + 4 * i) * load_f32(x + 4 * i)
    factor = np.float32(1.0) / sqrt_f32(squares / np.float32(head_dim) + eps)
    for i in range(0, whole, 16):
        store_f32x16(x + 4 * i, mul(mul(load_f32x16(x + 4 * i), splat_f32(factor)), load_f32x16(weight + 4 * i)))
    for i in range(whole, head_dim):
        store_f32(x + 4 * i, load_f32(x + 4 * i) * factor * load_f32(weight + 4 * i))


def make(variant: str, isa: Isa):
    """Argument block: x, x stride, heads, head_dim, weight, eps (f32 bits), address of the token count."""

    def kernel(args, thread, n_threads):
        x, stride = load_i64(args), load_i64(args + 8)
        heads, head_dim = load_i64(args + 16), load_i64(args + 24)
        weight, eps = load_i64(args + 32), bits_f32(load_i64(args + 40))
        count = load_i64(load_i64(args + 48))
        for item in range(count * heads * thread // n_threads, count * heads * (thread + 1) // n_threads):
            token = item // heads
            _norm(x + token * stride + (item - token * heads) * head_dim * 4, head_dim, weight, eps)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """The NumPy twin: [tokens, heads, head_dim] f32 -> the same shape."""
    wide = x.astype(np.float64)
    return (wide / np.sqrt((wide * wide).mean(axis=2, keepdims=True) + eps) * weight).astype(np.float32)
