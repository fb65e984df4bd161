"""log(1 + e**x) of 16 lanes."""

import numpy as np

from edgeq.simd.exp import exp_of_nonpositive
from edgeq.simd.vector import absolute, add, device, div, fma, larger, mul, neg, splat_f32


@device
def softplus(x):
    """Within 4 ulp: max(x, 0) + log(1 + u), u = e**-|x|. The logarithm is 2 artanh(s), s = u / (2 + u) <= 1/3, whose
    series is s + s^3 / 3 + ..., up to s^15 / 15: what is left out is below 2**-29 of it. NaN stays NaN."""
    u = exp_of_nonpositive(neg(absolute(x)))
    s = div(u, add(u, splat_f32(np.float32(2.0))))
    square = mul(s, s)
    p = splat_f32(np.float32(1.0 / 15.0))
    for k in range(13, 0, -2):
        p = fma(p, square, splat_f32(np.float32(1.0) / np.float32(k)))
    return fma(add(s, s), p, larger(splat_f32(np.float32(0.0)), x))
