"""RMS norm of groups of values, and a gate, in place: what recurrent layers do to their results."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    gate: int
    gate_stride: int  # bytes
    groups: int
    size: int  # of a group
    weight: int
    weight_step: int  # bytes from a group's weights to the next one's
    eps: int  # f32 bits
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class GatedNorm(Op):
    """RMS norm of x's groups of `size` values, a multiple of 16, each by itself, and times silu(gate), in place.
    `weight` has one value per value of a group, or of x. With `gate_first` what is normed is x silu(gate)."""

    x: Value
    gate: Value
    weight: str
    size: int
    eps: float
    gate_first: bool = False
    kernels: ClassVar[Variants] = {"gated_norm": lambda isa: ["last", "first"]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.gate,)

    @property
    def changes(self) -> Value:
        return self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x, gate = low.buffer(out), low.buffer(self.gate)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            gate=gate.address,
            gate_stride=gate.stride,
            groups=out.width // self.size,
            size=self.size,
            weight=low.vector(self.weight),
            weight_step=4 * self.size if low.shapes[self.weight] != (self.size,) else 0,
            eps=bits(self.eps),
            tokens=low.count(out),
        )
        low.tape.add(f"gated_norm:{'first' if self.gate_first else 'last'}", args, [gate], [x])


def make(variant, isa):
    """`variant` says when the gate comes. Threads share the groups of all tokens."""
    from edgeq.kernels.moments import rms_norm
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import add, device, div, load_f32x16, mul, neg, splat_f32, store_f32x16

    arguments, gate_first = words_of(Args), variant == "first"

    @device
    def silu(x):
        return div(x, add(splat_f32(np.float32(1.0)), exp(neg(x))))

    @device
    def gated(x, gate, size):
        for i in range(0, size * 4, 64):
            store_f32x16(x + i, mul(load_f32x16(x + i), silu(load_f32x16(gate + i))))

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, eps = load_i64(a.tokens), bits_f32(a.eps)
        for item in range(count * a.groups * thread // n_threads, count * a.groups * (thread + 1) // n_threads):
            token = item // a.groups
            group = item - token * a.groups
            x, gate = a.x + token * a.x_stride, a.gate + token * a.gate_stride
            x, gate, weight = x + group * a.size * 4, gate + group * a.size * 4, a.weight + group * a.weight_step
            if gate_first:
                gated(x, gate, a.size)
            rms_norm(x, a.size, weight, eps)
            if not gate_first:
                gated(x, gate, a.size)

    return kernel


def reference(
    x: np.ndarray, gate: np.ndarray, weight: np.ndarray, size: int, eps: float, gate_first: bool = False
) -> np.ndarray:
    """The NumPy twin: x and gate [tokens, width], weight [size] or [width] -> like x."""
    wide, opened = x.astype(np.float64), gate / (1.0 + np.exp(-gate.astype(np.float64)))
    if gate_first:
        wide = wide * opened
    groups = wide.reshape(len(x), -1, size)
    normed = groups / np.sqrt((groups * groups).mean(axis=2, keepdims=True) + eps)
    result = (normed * weight.reshape(-1, size)).reshape(x.shape)
    return (result if gate_first else result * opened).astype(np.float32)
