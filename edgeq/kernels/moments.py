"""What is summed of a row of f32 for its norm: squares, the mean, the variance."""

import numpy as np

from edgeq.simd.vector import (
    add,
    device,
    fma,
    load_f32x16,
    mul,
    select_below,
    splat_f32,
    sqrt_f32,
    store_f32x16,
    sub,
    sum_f32,
    zero_f32x16,
)


@device
def sum_of_squares(x, width):
    """Of the values at address x; a multiple of 16 of them, or padded with zeros to one."""
    total = zero_f32x16()
    for i in range(0, 4 * width, 64):
        value = load_f32x16(x + i)
        total = fma(value, value, total)
    return sum_f32(total)


@device
def rms_norm(x, width, weight, eps):
    """In place, of a multiple of 16 values at address x (arXiv:1910.07467); `weight` has as many."""
    factor = splat_f32(np.float32(1.0) / sqrt_f32(sum_of_squares(x, width) / np.float32(width) + eps))
    for i in range(0, 4 * width, 64):
        store_f32x16(x + i, mul(mul(load_f32x16(x + i), factor), load_f32x16(weight + i)))


@device
def mean_of(x, width):
    """Of the `width` values at address x."""
    total = zero_f32x16()
    for i in range(0, width, 16):
        total = add(total, select_below(width - i, load_f32x16(x + 4 * i), zero_f32x16()))
    return sum_f32(total) / np.float32(width)


@device
def variance_of(x, width, mean):
    """Of the `width` values at address x, whose mean is known."""
    total = zero_f32x16()
    for i in range(0, width, 16):
        away = select_below(width - i, sub(load_f32x16(x + 4 * i), splat_f32(mean)), zero_f32x16())
        total = fma(away, away, total)
    return sum_f32(total) / np.float32(width)
