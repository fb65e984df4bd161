"""LFM2's short convolution: B * x through a causal convolution of a few positions, channel by channel, times C.

The rows of B * x are kept in pages, as keys and values are, so that a sequence can go back and be forked.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Shapes, Variants
from edgeq.graph.pages import ConvRows, Kept
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int  # rows of B, C and x, `width` values each
    x_stride: int  # bytes
    width: int
    weight: int  # F32 panels [width, taps]
    taps: int
    bias: int  # or 0
    kept: int  # where the rows begin in a page
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    tokens: int  # how many rows, at this address
    positions: int  # theirs


@dataclass(frozen=True)
class ShortConv(Op):
    """x holds B, C and x': C * (B * x' through a causal convolution by `weight` [channels, taps] (+ bias))."""

    x: Value
    weight: str
    bias: str | None
    layer: int
    kernels: ClassVar[Variants] = {"short_conv": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return self.x.width // 3, False

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        width, taps = low.shapes[self.weight]
        return {self.layer: ConvRows(width, taps, low.places)}

    def lower(self, low: Lowering, out: Value) -> None:
        x, y, kept = low.buffer(self.x), low.buffer(out), low.kept(self.layer)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            width=out.width,
            weight=low.f32(self.weight),
            taps=low.shapes[self.weight][1],
            bias=low.vector(self.bias),
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            tokens=low.count(out),
            positions=int(low.tables.positions.ctypes.data),
        )
        low.tape.add("short_conv", args, [x], [y, kept])


def make(variant, isa):
    """Threads share the channels, so that every position a token looks back on was written by the same thread. `width`
    is a multiple of 16."""
    from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
    from edgeq.kernels.page_table import page_of
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import fma, load_f32x16, mul, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, vectors, row_bytes = load_i64(a.tokens), a.width // 16, a.width * 4
        for vector in range(vectors * thread // n_threads, vectors * (thread + 1) // n_threads):
            at = vector * 64
            panel = a.weight + vector * a.taps * 64
            for token in range(count):
                source, position = a.x + token * a.x_stride + at, load_i64(a.positions + 8 * token)
                gated = mul(load_f32x16(source), load_f32x16(source + 8 * a.width))
                store_f32x16(page_of(a.pages, token, position) + a.kept + position % BLOCK * row_bytes + at, gated)
                total = load_f32x16(a.bias + at) if a.bias != 0 else zero_f32x16()
                for tap in range(max(0, a.taps - 1 - position), a.taps):
                    seen = position - (a.taps - 1) + tap
                    row = page_of(a.pages, token, seen) + a.kept + seen % BLOCK * row_bytes + at
                    total = fma(load_f32x16(row), load_f32x16(panel + tap * 64), total)
                store_f32x16(a.out + token * a.out_stride + at, mul(total, load_f32x16(source + 4 * a.width)))

    return kernel


def reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """The NumPy twin, from position 0 on: x [tokens, 3 * width], weight [width, taps] -> [tokens, width]."""
    before, gate, values = np.split(x.astype(np.float64), 3, axis=1)
    taps = weight.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, before.shape[1])), before * values])
    total = sum(padded[tap : tap + len(x)] * weight[:, tap] for tap in range(taps))
    return ((total if bias is None else total + bias) * gate).astype(np.float32)
