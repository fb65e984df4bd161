"""Griffin's real-gated linear recurrent unit (arXiv:2402.19427): a value per channel, which forgets as much as a gate
lets it, and takes up the more of what comes in, gated too.

    h = a h + sqrt(1 - a^2) sigmoid(i) x,    a = exp(-8 softplus(rate) sigmoid(r))

with i and r per token and channel. At position 0 nothing is forgotten, and all of the gated x is taken up.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.pages import Kept, RecurrentState
from edgeq.graph.row_tables import RUNS
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    take: int  # rows of i, without its bias
    take_stride: int  # bytes
    forget: int  # rows of r, without its bias
    forget_stride: int  # bytes
    take_bias: int  # f32 per channel
    forget_bias: int  # f32 per channel
    rate: int  # f32 per channel
    positions: int  # of rows
    parts: int  # 16 channels each
    part_bytes: int
    kept: int  # where the state begins in a page: f32 per channel
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address


@dataclass(frozen=True)
class GatedRecurrence(Op):
    """x, `take` and `forget`, which are i and r but for the tensors `take_bias` and `forget_bias`, have as many
    channels as these and `rate`, a multiple of 16."""

    x: Value
    take: Value
    forget: Value
    take_bias: str
    forget_bias: str
    rate: str
    layer: int
    kernels: ClassVar[Variants] = {"gated_recurrence": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.take, self.forget

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {(self.layer, "state"): RecurrentState(4 * self.x.width)}

    def lower(self, low: Lowering, out: Value) -> None:
        x, take, forget = (low.buffer(value) for value in self.reads)
        y, kept = low.buffer(out), low.kept((self.layer, "state"))
        args = Args(
            x=x.address,
            x_stride=x.stride,
            take=take.address,
            take_stride=take.stride,
            forget=forget.address,
            forget_stride=forget.stride,
            take_bias=low.vector(self.take_bias),
            forget_bias=low.vector(self.forget_bias),
            rate=low.vector(self.rate),
            positions=int(low.tables.positions.ctypes.data),
            parts=out.width // 16,
            part_bytes=64,
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
        )
        low.tape.add("gated_recurrence", args, [x, take, forget], [y, kept])


def make(variant, isa):
    """A part is 16 channels."""
    from edgeq.kernels.scan import make_scan
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import load_i64
    from edgeq.simd.softplus import softplus
    from edgeq.simd.vector import add, device, div, fma, load_f32x16, mul, neg, splat_f32, sqrt, store_f32x16, sub

    arguments = words_of(Args)

    @device
    def sigmoid(z):
        one = splat_f32(np.float32(1.0))
        return div(one, add(one, exp(neg(z))))

    @device
    def columns(args, state, token, rows, part):
        a = arguments(args)
        at, one = part * 64, splat_f32(np.float32(1.0))
        take_bias, forget_bias = load_f32x16(a.take_bias + at), load_f32x16(a.forget_bias + at)
        rate = mul(softplus(load_f32x16(a.rate + at)), splat_f32(np.float32(-8.0)))
        h = load_f32x16(state)
        for row in range(token, token + rows):
            x = load_f32x16(a.x + row * a.x_stride + at)
            taken = mul(x, sigmoid(add(load_f32x16(a.take + row * a.take_stride + at), take_bias)))
            if load_i64(a.positions + 8 * row) == 0:
                h = taken
            else:
                forget = sigmoid(add(load_f32x16(a.forget + row * a.forget_stride + at), forget_bias))
                logarithm = mul(rate, forget)
                room = sqrt(sub(one, exp(add(logarithm, logarithm))))
                h = fma(exp(logarithm), h, mul(taken, room))
            store_f32x16(a.out + row * a.out_stride + at, h)
        store_f32x16(state, h)

    return make_scan(Args, columns)


def reference(
    x: np.ndarray,
    take: np.ndarray,
    forget: np.ndarray,
    take_bias: np.ndarray,
    forget_bias: np.ndarray,
    rate: np.ndarray,
) -> np.ndarray:
    """The NumPy twin, from position 0 on: x, take and forget [tokens, channels], the others [channels] -> like x."""
    wide = (part.astype(np.float64) + bias for part, bias in ((take, take_bias), (forget, forget_bias)))
    takes, forgets = (1.0 / (1.0 + np.exp(-part)) for part in wide)
    logarithms = -8.0 * np.logaddexp(0.0, rate.astype(np.float64)) * forgets
    result = np.zeros_like(x)
    h = np.zeros(x.shape[1])
    for t in range(len(x)):
        room = np.sqrt(1.0 - np.exp(2.0 * logarithms[t])) if t else 1.0
        h = np.exp(logarithms[t]) * h + x[t] * takes[t] * room
        result[t] = h
    return result
