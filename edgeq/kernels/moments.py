"""The mean and the variance of a row of f32."""

import numpy as np

from edgeq.simd.vector import (
    add,
    device,
    fma,
    load_f32x16,
    select_below,
    splat_f32,
    sub,
    sum_f32,
    zero_f32x16,
)


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
