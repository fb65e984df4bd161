"""SwiGLU's elementwise part: gate * sigmoid(gate) * up, packed as int8 activations in the same pass."""

import numpy as np

from edgeq.kernels.quantize import make_keep
from edgeq.simd.exp import exp_of_nonpositive
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64
from edgeq.simd.vector import (
    absolute,
    add,
    device,
    div,
    load_f32x16,
    mul,
    neg,
    select_negative,
    splat_f32,
)


@device
def _silu_mul(gate, up):
    """With e = exp(-|gate|), which never overflows: the sigmoid is 1 / (1 + e) or, below zero, e / (1 + e)."""
    one = splat_f32(np.float32(1.0))
    e = exp_of_nonpositive(neg(absolute(gate)))
    return mul(mul(gate, div(select_negative(gate, e, one), add(one, e))), up)


def make(variant: str, isa: Isa):
    """Argument block: gate, up, stride of both, width, out (or 0), out stride, words (or 0), sums, address of
    the token count."""
    keep = make_keep(isa.tile)

    def kernel(args, thread, n_threads):
        gate, up, stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        out, out_stride = load_i64(args + 32), load_i64(args + 40)
        words, sums = load_i64(args + 48), load_i64(args + 56)
        count = load_i64(load_i64(args + 64))
        groups = (width + 31) // 32
        first, last = count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads
        token = first // groups
        group = first - token * groups
        for _ in range(first, last):
            at = token * stride + group * 128
            low = _silu_mul(load_f32x16(gate + at), load_f32x16(up + at))
            high = _silu_mul(load_f32x16(gate + at + 64), load_f32x16(up + at + 64))
            target = out + token * out_stride + group * 128 if out != 0 else 0
            keep(low, high, target, words, sums, token, group, groups, count)
            group += 1
            if group == groups:
                token, group = token + 1, 0

    return kernel


def reference(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 each -> [tokens, width] f32."""
    wide = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return (wide / (1.0 + np.exp(-wide)) * up).astype(np.float32)
