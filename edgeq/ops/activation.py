"""Activation functions, alone or times a second row (a gated MLP), packed as int8 activations in the same pass.

SwiGLU's, the most common one, has a kernel of its own: silu_mul.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value

FUNCTIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "xielu", "tanh", "sigmoid")


class Args(NamedTuple):
    x: int
    up: int  # or 0
    stride: int  # bytes
    width: int
    out: int  # or 0
    out_stride: int  # bytes
    words: int  # or 0
    sums: int
    tokens: int  # how many, at this address
    parameters: int  # f32, or 0
    up_stride: int  # bytes


@dataclass(frozen=True)
class Activation(Op):
    """`kind`, one of FUNCTIONS, of x, times `up` if given, from its column `up_at` on. `parameters` are tensors of one
    value each, or values: of xielu the slope's growth above 0 and below, both before softplus, the slope at 0, and what
    is as good as 0 from below."""

    x: Value
    kind: str
    up: Value | None = None
    parameters: tuple[str, ...] | tuple[float, ...] = ()
    up_at: int = 0
    kernels: ClassVar[Variants] = {
        "activation": lambda isa: [name + gate for name in FUNCTIONS for gate in ("", "-mul")]
    }

    @property
    def packs(self) -> bool:
        return True

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,) if self.up is None else (self.x, self.up)

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        up = None if self.up is None else low.buffer(self.up)
        args = Args(
            x=x.address,
            up=up.address + 4 * self.up_at if up else 0,
            stride=x.stride,
            width=out.width,
            out=y.address,
            out_stride=y.stride,
            words=y.words_at,
            sums=y.sums_at,
            tokens=low.count(out),
            parameters=self._parameters(low),
            up_stride=up.stride if up else 0,
        )
        low.tape.add(f"activation:{self.kind}-mul" if up else f"activation:{self.kind}", args, [x, up], [y])

    def _parameters(self, low: Lowering) -> int:
        """Address of what the kernel reads of them."""
        if not self.parameters:
            return 0
        numbers = (one if isinstance(one, float) else low.file.data(one).view(np.float32)[0] for one in self.parameters)
        found = xielu_parameters(*map(float, numbers))
        low.keep.append(found)
        return int(found.ctypes.data)


def xielu_parameters(above: float, below: float, slope: float, zero: float) -> np.ndarray:
    """f32 [4] of what a checkpoint has (arXiv:2411.13010): a, b, slope, zero of

    a x^2 + slope x above 0, b (exp(min(x, zero)) - 1 - x) + slope x below.
    """
    a, b = np.logaddexp(0.0, above), slope + np.logaddexp(0.0, below)
    return np.array([a, b, slope, zero], np.float32)


def make(variant, isa):
    """`variant` names the function, with `-mul` behind it if the result is multiplied by `up`."""
    from edgeq.kernels.pack_rows import make_keep
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import load_f32x16, mul, select_below, zero_f32x16

    name, _, mul_up = variant.partition("-")
    arguments, keep, function, gated = words_of(Args), make_keep(isa.tile), functions()[name], mul_up == "mul"
    of_zero = name == "sigmoid" and not gated  # is not zero, as padding must be

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, groups = load_i64(a.tokens), (a.width + 31) // 32
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            at = token * a.stride + group * 128
            low, high = (
                function(load_f32x16(a.x + at), a.parameters),
                function(load_f32x16(a.x + at + 64), a.parameters),
            )
            if gated:
                beside = a.up + token * a.up_stride + group * 128
                low, high = mul(low, load_f32x16(beside)), mul(high, load_f32x16(beside + 64))
            if of_zero:
                left = a.width - group * 32
                low = select_below(left, low, zero_f32x16())
                high = select_below(left - 16, high, zero_f32x16())
            target = a.out + token * a.out_stride + group * 128 if a.out != 0 else 0
            keep(low, high, target, a.words, a.sums, token, group, groups, count)

    return kernel


def functions():
    """By name, of 16 f32, and of the parameters' address."""
    from edgeq.simd.exp import exp
    from edgeq.simd.exp import tanh as tanh_of
    from edgeq.simd.memory import load_f32
    from edgeq.simd.vector import absolute, add, device, div, fma, larger, mul, neg, select_negative, splat_f32, sub

    root = np.float32(math.sqrt(2.0 / math.pi))

    @device
    def silu(x, parameters):
        return div(x, add(splat_f32(np.float32(1.0)), exp(neg(x))))

    @device
    def gelu_tanh(x, parameters):
        """x / 2 (1 + tanh(y)) with y = sqrt(2 / pi) (x + 0.044715 x^3) (arXiv:1606.08415), which is x sigmoid(2 y)."""
        cubic = fma(mul(mul(x, x), x), splat_f32(np.float32(0.044715)), x)
        return div(x, add(splat_f32(np.float32(1.0)), exp(mul(cubic, splat_f32(np.float32(-2.0) * root)))))

    @device
    def gelu(x, parameters):
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
    def relu(x, parameters):
        return larger(splat_f32(np.float32(0.0)), x)  # in this order a NaN stays one

    @device
    def relu2(x, parameters):
        positive = relu(x, parameters)
        return mul(positive, positive)

    @device
    def xielu(x, parameters):
        below_zero = neg(larger(splat_f32(-load_f32(parameters + 12)), neg(x)))
        bent = sub(sub(exp(below_zero), splat_f32(np.float32(1.0))), x)
        bent = mul(bent, splat_f32(load_f32(parameters + 4)))
        grown = mul(mul(x, x), splat_f32(load_f32(parameters)))
        slope = mul(x, splat_f32(load_f32(parameters + 8)))
        return add(slope, select_negative(x, bent, grown))

    @device
    def tanh(x, parameters):
        return tanh_of(x)

    @device
    def sigmoid(x, parameters):
        one = splat_f32(np.float32(1.0))
        return div(one, add(one, exp(neg(x))))

    found = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu, "relu2": relu2, "xielu": xielu}
    return found | {"tanh": tanh, "sigmoid": sigmoid}


def reference(
    x: np.ndarray, kind: str, up: np.ndarray | None = None, parameters: Sequence[float] = (0.0, 0.0, 0.0, 0.0)
) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 -> [tokens, width] f32. `parameters`: see xielu_parameters."""
    a, b, slope, zero = parameters
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        twins: dict[str, Callable[[], np.ndarray]] = {
            "silu": lambda: wide / (1.0 + np.exp(-wide)),
            "gelu": lambda: 0.5 * wide * (1.0 + np.vectorize(math.erf)(wide / math.sqrt(2.0))),
            "gelu_tanh": lambda: 0.5 * wide * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3))),
            "relu": lambda: np.maximum(wide, 0.0),
            "relu2": lambda: np.maximum(wide, 0.0) ** 2,
            "tanh": lambda: np.tanh(wide),
            "sigmoid": lambda: 1.0 / (1.0 + np.exp(-wide)),
            "xielu": lambda: (
                np.where(wide > 0, a * wide * wide, b * (np.expm1(np.minimum(wide, zero)) - wide)) + slope * wide
            ),
        }
        result = twins[kind]()
    return (result if up is None else result * up).astype(np.float32)
