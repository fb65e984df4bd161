"""Mamba's selective scan (arXiv:2312.00752): a state per channel, each of whose values forgets at a rate of its own.

    s = exp(a dt) s + B (dt x),    y = s C + D x

with dt = softplus(z) per token and channel, and B and C per token. The state is computed token by token, 16 channels at
a time.
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
    step: int  # rows of z
    step_stride: int  # bytes
    b: int
    b_stride: int  # bytes
    c: int
    c_stride: int  # bytes
    rate: int  # F32 panels [channels, size]: a
    skip: int  # f32 per channel: D
    size: int  # of B and C, and of a channel's state
    parts: int  # 16 channels each
    part_bytes: int
    kept: int  # where the state begins in a page: f32 [channel / 16, size, 16]
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address


@dataclass(frozen=True)
class SelectiveScan(Op):
    """x and `step`, which is z, have a multiple of 16 channels, b and c as many values as the state of each; `rate`
    [channels, size] and `skip` [channels] are tensors."""

    x: Value
    step: Value
    b: Value
    c: Value
    rate: str
    skip: str
    layer: int
    kernels: ClassVar[Variants] = {"selective_scan": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.step, self.b, self.c

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {(self.layer, "state"): RecurrentState(4 * self.x.width * self.b.width)}

    def lower(self, low: Lowering, out: Value) -> None:
        x, step, b, c = (low.buffer(value) for value in self.reads)
        y, kept = low.buffer(out), low.kept((self.layer, "state"))
        args = Args(
            x=x.address,
            x_stride=x.stride,
            step=step.address,
            step_stride=step.stride,
            b=b.address,
            b_stride=b.stride,
            c=c.address,
            c_stride=c.stride,
            rate=low.f32(self.rate),
            skip=low.vector(self.skip),
            size=self.b.width,
            parts=out.width // 16,
            part_bytes=64 * self.b.width,
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
        )
        low.tape.add("selective_scan", args, [x, step, b, c], [y, kept])


def make(variant, isa):
    """A part is 16 channels."""
    from edgeq.kernels.scan import make_scan
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.softplus import softplus
    from edgeq.simd.vector import device, fma, load_f32x16, load_splat_f32, mul, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    @device
    def columns(args, state, token, rows, part):
        a = arguments(args)
        rate, skip = a.rate + part * a.part_bytes, load_f32x16(a.skip + part * 64)
        for row in range(token, token + rows):
            x, b, c = load_f32x16(a.x + row * a.x_stride + part * 64), a.b + row * a.b_stride, a.c + row * a.c_stride
            step = softplus(load_f32x16(a.step + row * a.step_stride + part * 64))
            taken, y = mul(step, x), zero_f32x16()
            for i in range(a.size):
                decay = exp(mul(step, load_f32x16(rate + 64 * i)))
                value = fma(load_splat_f32(b + 4 * i), taken, mul(load_f32x16(state + 64 * i), decay))
                store_f32x16(state + 64 * i, value)
                y = fma(value, load_splat_f32(c + 4 * i), y)
            store_f32x16(a.out + row * a.out_stride + part * 64, fma(skip, x, y))

    return make_scan(Args, columns)


def reference(
    x: np.ndarray, z: np.ndarray, b: np.ndarray, c: np.ndarray, rate: np.ndarray, skip: np.ndarray
) -> np.ndarray:
    """The NumPy twin, from position 0 on: x and z [tokens, channels], b and c [tokens, size], rate [channels, size],
    skip [channels] -> like x."""
    step = np.logaddexp(0.0, z.astype(np.float64))
    state, result = np.zeros(rate.shape), np.zeros_like(x)
    for t in range(len(x)):
        state = np.exp(step[t][:, None] * rate) * state + (step[t] * x[t])[:, None] * b[t]
        result[t] = state @ c[t].astype(np.float64) + skip * x[t]
    return result
