"""What of a row is larger than most of it would be if it were normally distributed: Gemma 3n's sparse activations."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    stride: int  # of x and `out`, in bytes
    width: int
    deviations: int  # f32 bits
    out: int
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class GaussianTop(Op):
    """max(x - cutoff, 0), the cutoff being the row's mean and so many of its standard `deviations` more: a new value,
    as threads that share a row measure all of it."""

    x: Value
    deviations: float
    kernels: ClassVar[Variants] = {"gaussian_top": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        args = Args(x.address, x.stride, out.width, bits(self.deviations), y.address, low.count(out))
        low.tape.add("gaussian_top", args, [x], [y])


def make(variant, isa):
    """Threads share the vectors of all rows, each measuring the rows it meets for itself: cheaper than a barrier. What
    pads a row stays zero."""
    from edgeq.kernels.moments import mean_of, variance_of
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import (
        larger,
        load_f32x16,
        select_below,
        splat_f32,
        sqrt_f32,
        store_f32x16,
        sub,
        zero_f32x16,
    )

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        deviations, count, vectors = bits_f32(a.deviations), load_i64(a.tokens), (a.width + 15) // 16
        known = -1
        cutoff = splat_f32(np.float32(0.0))
        for item in range(count * vectors * thread // n_threads, count * vectors * (thread + 1) // n_threads):
            token = item // vectors
            row, vector = token * a.stride, item - token * vectors
            if token != known:
                mean = mean_of(a.x + row, a.width)
                cutoff = splat_f32(mean + deviations * sqrt_f32(variance_of(a.x + row, a.width, mean)))
                known = token
            value = larger(zero_f32x16(), sub(load_f32x16(a.x + row + vector * 64), cutoff))  # a NaN stays one
            store_f32x16(a.out + row + vector * 64, select_below(a.width - vector * 16, value, zero_f32x16()))

    return kernel


def reference(x: np.ndarray, deviations: float) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 -> [tokens, width] f32."""
    wide = x.astype(np.float64)
    cutoff = wide.mean(axis=1, keepdims=True) + deviations * wide.std(axis=1, keepdims=True)
    return np.maximum(wide - cutoff, 0.0).astype(np.float32)
