"""Activation functions, alone or times a second row (a gated MLP), packed as int8 activations in the same pass.

SwiGLU's, the most common one, has a kernel of its own: silu_mul.
"""

import math

import numpy as np

from edgeq.kernels.quantize import make_keep
from edgeq.simd.exp import exp
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64
from edgeq.simd.vector import absolute, add, device, div, fma, larger, load_f32x16, mul, neg, splat_f32, sub

_ROOT = np.float32(math.sqrt(2.0 / math.pi))


@device
def _silu(x):
    return div(x, add(splat_f32(np.float32(1.0)), exp(neg(x))))


@device
def _gelu_tanh(x):
    """x / 2 (1 + tanh(y)) with y = sqrt(2 / pi) (x + 0.044715 x^3) (arXiv:1606.08415), which is x sigmoid(2 y)."""
    cubic = fma(mul(mul(x, x), x), splat_f32(np.float32(0.044715)), x)
    return div(x, add(splat_f32(np.float32(1.0)), exp(mul(cubic, splat_f32(np.float32(-2.0) * _ROOT)))))


@device
def _gelu(x):
    """x times the normal distribution's integral up to x: max(x, 0) - |x| q(|x|), q being the integral beyond |x|.

    q(z) = exp(-z^2 / 2) t (a1 + a2 t + ... + a5 t^4) / 2, t = 1 / (1 + p z / sqrt(2)), within 1e-7
    (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
    """
    z = absolute(x)
    t = div(
        splat_f32(np.float32(1.0)),
        fma(z, splat_f32(np.float32(0.3275911 / math.sqrt(2.0))), splat_f32(np.float32(1.0))),
    )
    p = fma(t, splat_f32(np.float32(1.061405429)), splat_f32(np.float32(-1.453152027)))
    p = fma(t, p, splat_f32(np.float32(1.421413741)))
    p = fma(t, p, splat_f32(np.float32(-0.284496736)))
    p = fma(t, p, splat_f32(np.float32(0.254829592)))
    tail = mul(mul(mul(p, t), splat_f32(np.float32(0.5))), exp(mul(mul(z, z), splat_f32(np.float32(-0.5)))))
    return sub(larger(x, splat_f32(np.float32(0.0))), mul(z, tail))


@device
def _relu(x):
    return larger(splat_f32(np.float32(0.0)), x)  # in this order a NaN stays one


@device
def _relu2(x):
    positive = _relu(x)
    return mul(positive, positive)


_FUNCTIONS = {"silu": _silu, "gelu": _gelu, "gelu_tanh": _gelu_tanh, "relu": _relu, "relu2": _relu2}


def make(variant: str, isa: Isa):
    """`variant` names the function, with `-mul` behind it if the result is multiplied by `up`.

    Argument block: x, up (or 0), stride of both, width, out (or 0), out stride, words (or 0), sums, address of the
    token count.
    """
    name, _, mul_up = variant.partition("-")
    keep, function, gated = make_keep(isa.tile), _FUNCTIONS[name], mul_up == "mul"

    def kernel(args, thread, n_threads):
        x, up, stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16), load_i64(args + 24)
        out, out_stride = load_i64(args + 32), load_i64(args + 40)
        words, sums = load_i64(args + 48), load_i64(args + 56)
        count = load_i64(load_i64(args + 64))
        groups = (width + 31) // 32
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            at = token * stride + group * 128
            low, high = function(load_f32x16(x + at)), function(load_f32x16(x + at + 64))
            if gated:
                low, high = mul(low, load_f32x16(up + at)), mul(high, load_f32x16(up + at + 64))
            target = out + token * out_stride + group * 128 if out != 0 else 0
            keep(low, high, target, words, sums, token, group, groups, count)

    return kernel


def reference(x: np.ndarray, kind: str, up: np.ndarray | None = None) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 -> [tokens, width] f32."""
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        result = {
            "silu": lambda: wide / (1.0 + np.exp(-wide)),
            "gelu": lambda: 0.5 * wide * (1.0 + np.vectorize(math.erf)(wide / math.sqrt(2.0))),
            "gelu_tanh": lambda: 0.5 * wide * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3))),
            "relu": lambda: np.maximum(wide, 0.0),
            "relu2": lambda: np.maximum(wide, 0.0) ** 2,
        }[kind]()
    return (result if up is None else result * up).astype(np.float32)
