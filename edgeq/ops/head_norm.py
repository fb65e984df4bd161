"""RMS norm of every head by itself, as Qwen3 and Gemma 3 norm queries and keys: in place, or beside what is normed."""

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
    heads: int
    head_dim: int
    weight: int
    eps: int  # f32 bits
    tokens: int  # how many, at this address
    out: int  # x itself, or another value
    out_stride: int  # bytes


@dataclass(frozen=True)
class HeadNorm(Op):
    """RMS norm of every head of x by itself, in place, or as a new value if x `stays`; `weights` have one value per
    value of a head, and multiply one another: of none all are 1."""

    x: Value
    weights: tuple[str, ...]
    head_dim: int
    eps: float
    stays: bool = False
    kernels: ClassVar[Variants] = {"head_norm": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,) if self.stays else ()

    @property
    def changes(self) -> Value | None:
        return None if self.stays else self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            heads=out.width // self.head_dim,
            head_dim=self.head_dim,
            weight=low.product(self.weights, self.head_dim),
            eps=bits(self.eps),
            tokens=low.count(out),
            out=y.address,
            out_stride=y.stride,
        )
        low.tape.add("head_norm", args, [x] if self.stays else [], [y])


def make(variant, isa):
    """Threads share the heads of all tokens."""
    from edgeq.kernels.moments import sum_of_squares
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_f32, load_i64, store_f32
    from edgeq.simd.vector import device, load_f32x16, mul, splat_f32, sqrt_f32, store_f32x16

    arguments = words_of(Args)

    @device
    def norm(x, out, head_dim, weight, eps):
        whole = head_dim // 16 * 16
        squares = sum_of_squares(x, whole)
        for i in range(whole, head_dim):
            squares += load_f32(x + 4 * i) * load_f32(x + 4 * i)
        factor = np.float32(1.0) / sqrt_f32(squares / np.float32(head_dim) + eps)
        for i in range(0, whole, 16):
            store_f32x16(out + 4 * i, mul(mul(load_f32x16(x + 4 * i), splat_f32(factor)), load_f32x16(weight + 4 * i)))
        for i in range(whole, head_dim):
            store_f32(out + 4 * i, load_f32(x + 4 * i) * factor * load_f32(weight + 4 * i))

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, eps = load_i64(a.tokens), bits_f32(a.eps)
        for item in range(count * a.heads * thread // n_threads, count * a.heads * (thread + 1) // n_threads):
            token = item // a.heads
            at = (item - token * a.heads) * a.head_dim * 4
            norm(a.x + token * a.x_stride + at, a.out + token * a.out_stride + at, a.head_dim, a.weight, eps)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """The NumPy twin: [tokens, heads, head_dim] f32 -> the same shape."""
    wide = x.astype(np.float64)
    return (wide / np.sqrt((wide * wide).mean(axis=2, keepdims=True) + eps) * weight).astype(np.float32)
