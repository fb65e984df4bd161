"""What the heads of an attention give, each times the sigmoid of a number of its own: in place."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    heads: int
    head_dim: int
    gate: int  # f32 of each head
    gate_stride: int  # bytes
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class HeadGate(Op):
    """Every head of x times the sigmoid of its value in `gate`, in place; heads share x evenly."""

    x: Value
    gate: Value
    kernels: ClassVar[Variants] = {"head_gate": lambda isa: [""]}

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
            heads=self.gate.width,
            head_dim=out.width // self.gate.width,
            gate=gate.address,
            gate_stride=gate.stride,
            tokens=low.count(out),
        )
        low.tape.add("head_gate", args, [gate], [x])


def make(variant, isa):
    """Threads share the heads of all tokens."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import load_f32, load_i64, store_f32
    from edgeq.simd.vector import (
        add,
        device,
        div,
        load_f32x16,
        load_splat_f32,
        mul,
        neg,
        select_below,
        splat_f32,
        store_f32x16,
        sum_f32,
        zero_f32x16,
    )

    arguments = words_of(Args)

    @device
    def scale(x, head_dim, gate):
        one = splat_f32(np.float32(1.0))
        factor = div(one, add(one, exp(neg(load_splat_f32(gate)))))
        whole = head_dim // 16 * 16
        for i in range(0, whole, 16):
            store_f32x16(x + 4 * i, mul(load_f32x16(x + 4 * i), factor))
        alone = sum_f32(select_below(1, factor, zero_f32x16()))
        for i in range(whole, head_dim):
            store_f32(x + 4 * i, load_f32(x + 4 * i) * alone)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count = load_i64(a.tokens)
        for item in range(count * a.heads * thread // n_threads, count * a.heads * (thread + 1) // n_threads):
            token = item // a.heads
            head = item - token * a.heads
            at = a.x + token * a.x_stride + head * a.head_dim * 4
            scale(at, a.head_dim, a.gate + token * a.gate_stride + 4 * head)

    return kernel


def reference(x: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """The NumPy twin: x [tokens, heads, head_dim], gate [tokens, heads] -> like x."""
    with np.errstate(over="ignore"):
        return (x.astype(np.float64) / (1.0 + np.exp(-gate.astype(np.float64)))[:, :, None]).astype(np.float32)
