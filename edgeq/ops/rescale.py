"""A row made as large as another one: AltUp's streams begin and end with the magnitude of the first one."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    like: int
    stride: int  # of both and `out`, in bytes
    width: int
    least: int  # f32 bits
    out: int
    tokens: int  # how many, at this address


@dataclass(frozen=True)
class Rescale(Op):
    """x times what makes its root mean square that of `like`, which is as wide; a mean square of x below `least`
    counts as that."""

    x: Value
    like: Value
    least: float
    kernels: ClassVar[Variants] = {"rescale": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.like

    def lower(self, low: Lowering, out: Value) -> None:
        x, like, y = low.buffer(self.x), low.buffer(self.like), low.buffer(out)
        addresses = x.address, like.address, x.stride
        args = Args(*addresses, out.width, bits(self.least), y.address, low.count(out))
        low.tape.add("rescale", args, [x, like], [y])


def make(variant, isa):
    """Rows are padded with zeros to 16 columns. Threads share the vectors of all rows, each measuring the rows it meets
    for itself: cheaper than a barrier."""
    from edgeq.kernels.moments import sum_of_squares
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import (
        device,
        load_f32x16,
        mul,
        select_below,
        splat_f32,
        sqrt_f32,
        store_f32x16,
        zero_f32x16,
    )

    arguments = words_of(Args)

    @device
    def mean_square(x, width):
        return sum_of_squares(x, width) / np.float32(width)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        least, count, vectors = bits_f32(a.least), load_i64(a.tokens), (a.width + 15) // 16
        known = -1
        factor = splat_f32(np.float32(0.0))
        for item in range(count * vectors * thread // n_threads, count * vectors * (thread + 1) // n_threads):
            token = item // vectors
            row, vector = token * a.stride, item - token * vectors
            if token != known:
                own = mean_square(a.x + row, a.width)
                own = least if own < least else own
                factor = splat_f32(sqrt_f32(mean_square(a.like + row, a.width)) / sqrt_f32(own))
                known = token
            value = mul(load_f32x16(a.x + row + vector * 64), factor)
            store_f32x16(a.out + row + vector * 64, select_below(a.width - vector * 16, value, zero_f32x16()))

    return kernel


def reference(x: np.ndarray, like: np.ndarray, least: float) -> np.ndarray:
    """The NumPy twin: [tokens, width] f32 each -> [tokens, width] f32."""
    own, wanted = ((one.astype(np.float64) ** 2).mean(axis=1, keepdims=True) for one in (x, like))
    return (x * np.sqrt(wanted / np.maximum(own, least))).astype(np.float32)
