"""Layer norm, written as f32 rows and, where a quantized matrix follows, as packed int8 activations too."""

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
    bias: int  # or 0
    eps: int  # f32 bits
    out: int  # or 0
    out_stride: int  # bytes
    words: int  # or 0
    sums: int
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class LayerNorm(Op):
    """(x - mean(x)) / sqrt(variance(x) + eps) * weight (+ bias) (arXiv:1607.06450), or without both."""

    x: Value
    weight: str | None
    bias: str | None
    eps: float
    kernels: ClassVar[Variants] = {"layer_norm": lambda isa: [""]}

    @property
    def packs(self) -> bool:
        return True

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            width=out.width,
            weight=low.product((self.weight,) if self.weight else (), out.width),
            bias=low.vector(self.bias),
            eps=bits(self.eps),
            out=y.address,
            out_stride=y.stride,
            words=y.words_at,
            sums=y.sums_at,
            tokens=low.count(out),
        )
        low.tape.add("layer_norm", args, [x], [y])


def make(variant, isa):
    """Rows, weight and bias are padded with zeros to 32 columns. Threads share the groups of 32 columns, each measuring
    the rows it meets for itself: cheaper than a barrier."""
    from edgeq.kernels.moments import mean_of, variance_of
    from edgeq.kernels.pack_rows import make_keep
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import (
        add,
        device,
        load_f32x16,
        mul,
        splat_f32,
        sqrt_f32,
        sub,
    )

    arguments, keep = words_of(Args), make_keep(isa.tile)

    @device
    def normalized(x, weight, bias, mean, factor):
        value = mul(mul(sub(load_f32x16(x), mean), factor), load_f32x16(weight))
        return add(value, load_f32x16(bias)) if bias != 0 else value

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, groups, eps = load_i64(a.tokens), (a.width + 31) // 32, bits_f32(a.eps)
        known = -1
        mean = splat_f32(np.float32(0.0))
        factor = splat_f32(np.float32(0.0))
        for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
            token = item // groups
            group = item - token * groups
            row = a.x + token * a.x_stride
            if token != known:
                middle = mean_of(row, a.width)
                mean = splat_f32(middle)
                factor = splat_f32(np.float32(1.0) / sqrt_f32(variance_of(row, a.width, middle) + eps))
                known = token
            at, low_bias = group * 128, a.bias + group * 128 if a.bias != 0 else 0
            low = normalized(row + at, a.weight + at, low_bias, mean, factor)
            at, high_bias = at + 64, low_bias + 64 if a.bias != 0 else 0
            high = normalized(row + at, a.weight + at, high_bias, mean, factor)
            target = a.out + token * a.out_stride + group * 128 if a.out != 0 else 0
            keep(low, high, target, a.words, a.sums, token, group, groups, count)

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, eps: float) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 -> [tokens, width] f32."""
    wide = x.astype(np.float64)
    wide = wide - wide.mean(axis=1, keepdims=True)
    result = wide / np.sqrt((wide * wide).mean(axis=1, keepdims=True) + eps) * weight
    return (result if bias is None else result + bias).astype(np.float32)
