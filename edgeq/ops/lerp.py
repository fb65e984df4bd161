"""Between one value and another, by weights of the model or by a gate; packed as int8 activations in the same pass."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    y: int
    stride: int  # of both, in bytes
    by: int  # a row of weights, or rows of gates
    by_stride: int  # bytes, 0 of a row of weights
    width: int
    out: int  # or 0
    out_stride: int  # bytes
    words: int  # or 0
    sums: int
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class Lerp(Op):
    """x + (y - x) t: t are the values of the vector `weight`, from the one numbered `first` on, or sigmoid(`gate`). Of
    weights, the width is a multiple of 16."""

    x: Value
    y: Value
    weight: str = ""
    first: int = 0
    gate: Value | None = None
    kernels: ClassVar[Variants] = {"lerp": lambda isa: ["weight", "gate"]}

    @property
    def packs(self) -> bool:
        return True

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x, self.y) if self.gate is None else (self.x, self.y, self.gate)

    def lower(self, low: Lowering, out: Value) -> None:
        x, y, z = low.buffer(self.x), low.buffer(self.y), low.buffer(out)
        assert x.stride == y.stride
        gate = None if self.gate is None else low.buffer(self.gate)
        args = Args(
            x=x.address,
            y=y.address,
            stride=x.stride,
            by=gate.address if gate else low.vector(self.weight) + 4 * self.first,
            by_stride=gate.stride if gate else 0,
            width=out.width,
            out=z.address,
            out_stride=z.stride,
            words=z.words_at,
            sums=z.sums_at,
            tokens=low.count(out),
        )
        low.tape.add(f"lerp:{'gate' if gate else 'weight'}", args, [x, y, gate], [z])


def make(variant, isa):
    """Threads share the groups of 32 columns. Rows are padded with zeros to these, rows of weights are not."""
    from edgeq.kernels.pack_rows import make_keep
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import add, device, div, fma, load_f32x16, neg, splat_f32, sub, zero_f32x16

    arguments, keep, gated = words_of(Args), make_keep(isa.tile), variant == "gate"

    @device
    def between(x, y, by):
        x, t = load_f32x16(x), load_f32x16(by)
        if gated:
            one = splat_f32(np.float32(1.0))
            t = div(one, add(one, exp(neg(t))))
        return fma(sub(load_f32x16(y), x), t, x)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, groups = load_i64(a.tokens), (a.width + 31) // 32
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            at, high = token * a.stride + group * 128, zero_f32x16()
            by = a.by + token * a.by_stride + group * 128
            low = between(a.x + at, a.y + at, by)
            if group * 32 + 16 < a.width:
                high = between(a.x + at + 64, a.y + at + 64, by + 64)
            target = a.out + token * a.out_stride + group * 128 if a.out != 0 else 0
            keep(low, high, target, a.words, a.sums, token, group, groups, count)

    return kernel


def reference(x: np.ndarray, y: np.ndarray, t: np.ndarray, gated: bool = False) -> np.ndarray:
    """The NumPy twin: x and y [tokens, width], t [width] or, of gates, like x -> like x."""
    wide = t.astype(np.float64)
    with np.errstate(over="ignore"):
        wide = 1.0 / (1.0 + np.exp(-wide)) if gated else wide
    return (x + (y.astype(np.float64) - x) * wide).astype(np.float32)
