"""SwiGLU's elementwise part: gate * sigmoid(gate) * up, packed as int8 activations in the same pass."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    gate: int
    up: int
    stride: int  # of both, in bytes
    width: int
    out: int  # or 0
    out_stride: int  # bytes
    words: int  # or 0
    sums: int
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class SiluMul(Op):
    """gate * sigmoid(gate) * up."""

    gate: Value
    up: Value
    kernels: ClassVar[Variants] = {"silu_mul": lambda isa: [""]}

    @property
    def packs(self) -> bool:
        return True

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.gate, self.up

    def lower(self, low: Lowering, out: Value) -> None:
        gate, up, y = low.buffer(self.gate), low.buffer(self.up), low.buffer(out)
        args = Args(
            gate=gate.address,
            up=up.address,
            stride=gate.stride,
            width=out.width,
            out=y.address,
            out_stride=y.stride,
            words=y.words_at,
            sums=y.sums_at,
            tokens=low.count(out),
        )
        low.tape.add("silu_mul", args, [gate, up], [y])


def make(variant, isa):
    """Threads share the groups of 32 columns."""
    from edgeq.kernels.pack_rows import make_keep
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp_of_nonpositive
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import absolute, add, device, div, load_f32x16, mul, neg, select_negative, splat_f32

    arguments, keep = words_of(Args), make_keep(isa.tile)

    @device
    def silu_mul(gate, up):
        """With e = exp(-|gate|), which never overflows: the sigmoid is 1 / (1 + e) or, below zero, e / (1 + e)."""
        one = splat_f32(np.float32(1.0))
        e = exp_of_nonpositive(neg(absolute(gate)))
        return mul(mul(gate, div(select_negative(gate, e, one), add(one, e))), up)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, groups = load_i64(a.tokens), (a.width + 31) // 32
        first, last = count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads
        token = first // groups
        group = first - token * groups
        for _ in range(first, last):
            at = token * a.stride + group * 128
            low = silu_mul(load_f32x16(a.gate + at), load_f32x16(a.up + at))
            high = silu_mul(load_f32x16(a.gate + at + 64), load_f32x16(a.up + at + 64))
            target = a.out + token * a.out_stride + group * 128 if a.out != 0 else 0
            keep(low, high, target, a.words, a.sums, token, group, groups, count)
            group += 1
            if group == groups:
                token, group = token + 1, 0

    return kernel


def reference(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 each -> [tokens, width] f32."""
    wide = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return (wide / (1.0 + np.exp(-wide)) * up).astype(np.float32)
