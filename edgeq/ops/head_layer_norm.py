"""Layer norm of every head by itself, as Persimmon norms queries and keys: in place."""

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
    weight_stride: int  # bytes from a head's to the next one's, 0 if heads share them
    bias: int  # of all heads, or 0
    eps: int  # f32 bits
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class HeadLayerNorm(Op):
    """Layer norm of every head of x by itself, in place: `weight` has a value for each of a head's, or, `apart`, of all
    heads, head after head; `bias` is that of all heads, if there is one."""

    x: Value
    weight: str
    bias: str | None
    head_dim: int
    eps: float
    apart: bool = False
    kernels: ClassVar[Variants] = {"head_layer_norm": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    @property
    def changes(self) -> Value:
        return self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x = low.buffer(out)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            heads=out.width // self.head_dim,
            head_dim=self.head_dim,
            weight=low.vector(self.weight),
            weight_stride=4 * self.head_dim if self.apart else 0,
            bias=low.vector(self.bias),
            eps=bits(self.eps),
            tokens=low.count(out),
        )
        low.tape.add("head_layer_norm", args, [], [x])


def make(variant, isa):
    """Threads share the heads of all tokens."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_f32, load_i64, store_f32
    from edgeq.simd.vector import (
        add,
        device,
        fma,
        load_f32x16,
        mul,
        splat_f32,
        sqrt_f32,
        store_f32x16,
        sub,
        sum_f32,
        zero_f32x16,
    )

    arguments = words_of(Args)

    @device
    def norm(x, head_dim, weight, bias, eps):
        whole = head_dim // 16 * 16
        sums = zero_f32x16()
        for i in range(0, whole, 16):
            sums = add(sums, load_f32x16(x + 4 * i))
        total = sum_f32(sums)
        for i in range(whole, head_dim):
            total += load_f32(x + 4 * i)
        mean = total / np.float32(head_dim)
        sums = zero_f32x16()
        for i in range(0, whole, 16):
            away = sub(load_f32x16(x + 4 * i), splat_f32(mean))
            sums = fma(away, away, sums)
        total = sum_f32(sums)
        for i in range(whole, head_dim):
            total += (load_f32(x + 4 * i) - mean) * (load_f32(x + 4 * i) - mean)
        factor = np.float32(1.0) / sqrt_f32(total / np.float32(head_dim) + eps)
        for i in range(0, whole, 16):
            value = mul(
                mul(sub(load_f32x16(x + 4 * i), splat_f32(mean)), splat_f32(factor)), load_f32x16(weight + 4 * i)
            )
            store_f32x16(x + 4 * i, add(value, load_f32x16(bias + 4 * i)) if bias != 0 else value)
        for i in range(whole, head_dim):
            single = (load_f32(x + 4 * i) - mean) * factor * load_f32(weight + 4 * i)
            store_f32(x + 4 * i, single + load_f32(bias + 4 * i) if bias != 0 else single)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, eps = load_i64(a.tokens), bits_f32(a.eps)
        for item in range(count * a.heads * thread // n_threads, count * a.heads * (thread + 1) // n_threads):
            token = item // a.heads
            head = item - token * a.heads
            x = a.x + token * a.x_stride + head * a.head_dim * 4
            norm(x, a.head_dim, a.weight + head * a.weight_stride, a.bias, eps)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, eps: float) -> np.ndarray:
    """The NumPy twin: x [tokens, heads, head_dim] f32, weight [head_dim] or [heads, head_dim] -> x's shape."""
    wide = x.astype(np.float64)
    wide = wide - wide.mean(axis=2, keepdims=True)
    result = wide / np.sqrt((wide * wide).mean(axis=2, keepdims=True) + eps) * weight
    return (result if bias is None else result + bias).astype(np.float32)
