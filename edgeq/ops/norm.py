"""RMS norm, written as f32 rows and, where a quantized matrix follows, as packed int8 activations in the same pass."""

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
    width: int
    weight: int
    eps: int  # f32 bits
    out: int  # or 0
    out_stride: int  # bytes
    words: int  # or 0
    sums: int
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class RMSNorm(Op):
    """x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467), or without one; with `add_to`, added to that value in
    place."""

    x: Value
    weight: str | None
    eps: float
    add_to: Value | None = None
    kernels: ClassVar[Variants] = {"norm": lambda isa: ["", "add"]}

    @property
    def packs(self) -> bool:
        return True

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    @property
    def changes(self) -> Value | None:
        return self.add_to

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            width=out.width,
            weight=low.product([self.weight] if self.weight else [], out.width),
            eps=bits(self.eps),
            out=y.address,
            out_stride=y.stride,
            words=y.words_at,
            sums=y.sums_at,
            tokens=low.count(out),
        )
        low.tape.add("norm:add" if self.add_to else "norm", args, [x], [y])


def make(variant, isa):
    """`variant` is empty, or `add` to add the result to what `out` holds.

    Rows are padded with zeros to 32 columns. Threads share the groups of 32 columns, each summing the squares of the
    rows it meets for itself: cheaper than a barrier.
    """
    from edgeq.kernels.moments import sum_of_squares
    from edgeq.kernels.pack_rows import make_keep
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import add, load_f32x16, mul, splat_f32, sqrt_f32

    arguments, keep, adds = words_of(Args), make_keep(isa.tile), variant == "add"

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, groups, eps = load_i64(a.tokens), (a.width + 31) // 32, bits_f32(a.eps)
        known = -1
        factor = splat_f32(np.float32(0.0))
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            if token != known:
                mean = sum_of_squares(a.x + token * a.x_stride, groups * 32) / np.float32(a.width)
                factor = splat_f32(np.float32(1.0) / sqrt_f32(mean + eps))
                known = token
            source = a.x + token * a.x_stride + group * 128
            low = mul(mul(load_f32x16(source), factor), load_f32x16(a.weight + group * 128))
            high = mul(mul(load_f32x16(source + 64), factor), load_f32x16(a.weight + group * 128 + 64))
            target = a.out + token * a.out_stride + group * 128 if a.out != 0 else 0
            if adds:
                low, high = add(load_f32x16(target), low), add(load_f32x16(target + 64), high)
            keep(low, high, target, a.words, a.sums, token, group, groups, count)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 -> [tokens, width] f32."""
    wide = x.astype(np.float64)
    scale = 1.0 / np.sqrt((wide * wide).mean(axis=1, keepdims=True) + eps)
    return (wide * scale * weight).astype(np.float32)
