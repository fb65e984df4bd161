"""Mamba-2's state space layer (arXiv:2405.21060): a matrix per head that forgets, and takes up what comes in.

    S = decay S + B (dt x)^T,    y = S^T C + D x

with dt = softplus(z + bias) and decay = exp(a dt) per token and head; B and C are those of a group of heads. The state
is computed token by token, 16 columns at a time, as in delta_net.py.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits, round_up
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Shapes, Variants
from edgeq.graph.pages import Kept, RecurrentState
from edgeq.graph.row_tables import RUNS, TOKENS
from edgeq.graph.value import Value

DECAY, STEP, FACTORS = range(3)  # of a row and head
TOGETHER = 4  # tokens for which a row of the state stays in a register


class Args(NamedTuple):
    x: int  # rows of x, B and C
    x_stride: int  # bytes
    step: int  # rows of z, one value per head
    step_stride: int  # bytes
    rate: int  # f32 per head: a
    bias: int  # f32 per head
    skip: int  # f32 per head: D
    heads: int
    head_dim: int
    groups: int  # of heads that are neighbours
    size: int  # of B and C of a group
    factors: int  # f32 [rows, FACTORS, heads, rounded up to 16]
    parts: int  # 16 columns of a head each
    part_bytes: int
    kept: int  # where the state begins in a page: f32 [head, value / 16, size, 16]
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address
    tokens: int  # how many rows, at this address
    least: int  # f32 bits, or 0: of dt


@dataclass(frozen=True)
class StateSpace(Op):
    """x holds the values of `heads` heads, then B and C of `groups`, `size` values each; `step` is z; `rate`, `bias`
    and `skip` are tensors of one value per head; dt is at least `least`. Sizes are multiples of 16."""

    x: Value
    step: Value
    rate: str
    bias: str
    skip: str
    heads: int
    groups: int
    size: int
    layer: int
    least: float = 0.0
    kernels: ClassVar[Variants] = {"state_space": lambda isa: ["factors", "scan"]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.step

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return self.x.width - 2 * self.groups * self.size, False

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {(self.layer, "state"): RecurrentState(4 * self.size * self.shape({})[0])}

    def lower(self, low: Lowering, out: Value) -> None:
        x, step, y, kept = low.buffer(self.x), low.buffer(self.step), low.buffer(out), low.kept((self.layer, "state"))
        factors = low.scratch.take(low.capacity[False] * FACTORS * round_up(self.heads, 16) * 4)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            step=step.address,
            step_stride=step.stride,
            rate=low.vector(self.rate),
            bias=low.vector(self.bias),
            skip=low.vector(self.skip),
            heads=self.heads,
            head_dim=out.width // self.heads,
            groups=self.groups,
            size=self.size,
            factors=int(factors.ctypes.data),
            parts=out.width // 16,
            part_bytes=64 * self.size,
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
            tokens=low.tables.count(TOKENS),
            least=bits(self.least),
        )
        low.tape.add("state_space:factors", args, [step], [factors])
        low.tape.add("state_space:scan", args, [x, factors], [y, kept])
        low.scratch.release(factors)


def make(variant, isa):
    """`factors` computes decay and dt of 16 heads at a time, `scan` the rest."""
    return _make_factors() if variant == "factors" else _make_scan()


def _make_factors():
    """Threads share the rows, and the groups of 16 heads in them."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.softplus import softplus
    from edgeq.simd.vector import add, larger, load_f32x16, mul, splat_f32, store_f32x16

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        sixteens = (a.heads + 15) // 16
        items = load_i64(a.tokens) * sixteens
        for item in range(items * thread // n_threads, items * (thread + 1) // n_threads):
            token = item // sixteens
            first = (item - token * sixteens) * 64
            at = a.factors + token * FACTORS * sixteens * 64 + first
            z = add(load_f32x16(a.step + token * a.step_stride + first), load_f32x16(a.bias + first))
            step = softplus(z)
            if a.least != 0:
                step = larger(step, splat_f32(bits_f32(a.least)))
            store_f32x16(at, exp(mul(step, load_f32x16(a.rate + first))))
            store_f32x16(at + STEP * sixteens * 64, step)

    return kernel


def _make_scan():
    """A part is 16 columns of a head's state. Each sum is taken in the same order whether tokens are computed together
    or one by one."""
    from edgeq.kernels.scan import make_scan
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.vector import device, fma, load_f32x16, load_splat_f32, mul, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    @device
    def after(state, decay, b, u):
        """A row of the state after a token whose B is at `b`."""
        return fma(load_splat_f32(b), u, mul(state, decay))

    @device
    def taken_up(factor, step, x):
        """dt x."""
        return mul(load_splat_f32(factor + STEP * step), load_f32x16(x))

    @device
    def one(state, b, c, size, factor, step, x, skip, out):
        """A token."""
        decay, u, y = load_splat_f32(factor), taken_up(factor, step, x), zero_f32x16()
        for i in range(size):
            row = after(load_f32x16(state + 64 * i), decay, b + 4 * i, u)
            store_f32x16(state + 64 * i, row)
            y = fma(row, load_splat_f32(c + 4 * i), y)
        store_f32x16(out, fma(skip, load_f32x16(x), y))

    @device
    def four(state, b, c, size, factor, step, x, skip, out, stride, out_stride):
        """TOGETHER tokens; what is theirs lies `stride` bytes apart, factors of a row are of `step` bytes each."""
        f1, f2, f3 = factor + FACTORS * step, factor + 2 * FACTORS * step, factor + 3 * FACTORS * step
        x1, x2, x3 = x + stride, x + 2 * stride, x + 3 * stride
        d0, d1, d2, d3 = load_splat_f32(factor), load_splat_f32(f1), load_splat_f32(f2), load_splat_f32(f3)
        u0, u1 = taken_up(factor, step, x), taken_up(f1, step, x1)
        u2, u3 = taken_up(f2, step, x2), taken_up(f3, step, x3)
        y0, y1, y2, y3 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for i in range(size):
            at = 4 * i
            row = after(load_f32x16(state + 64 * i), d0, b + at, u0)
            y0 = fma(row, load_splat_f32(c + at), y0)
            row = after(row, d1, b + stride + at, u1)
            y1 = fma(row, load_splat_f32(c + stride + at), y1)
            row = after(row, d2, b + 2 * stride + at, u2)
            y2 = fma(row, load_splat_f32(c + 2 * stride + at), y2)
            row = after(row, d3, b + 3 * stride + at, u3)
            y3 = fma(row, load_splat_f32(c + 3 * stride + at), y3)
            store_f32x16(state + 64 * i, row)
        store_f32x16(out, fma(skip, load_f32x16(x), y0))
        store_f32x16(out + out_stride, fma(skip, load_f32x16(x1), y1))
        store_f32x16(out + 2 * out_stride, fma(skip, load_f32x16(x2), y2))
        store_f32x16(out + 3 * out_stride, fma(skip, load_f32x16(x3), y3))

    @device
    def columns(args, state, token, rows, part):
        a = arguments(args)
        head, at = part // (a.head_dim // 16), part * 64
        step, skip = (a.heads + 15) // 16 * 64, load_splat_f32(a.skip + head * 4)
        row = a.x + token * a.x_stride
        x, out, factor = row + at, a.out + token * a.out_stride + at, a.factors + token * FACTORS * step + head * 4
        b = row + (a.heads * a.head_dim + head // (a.heads // a.groups) * a.size) * 4
        c = b + a.groups * a.size * 4
        done = 0
        while done < rows:
            here = TOGETHER if rows - done >= TOGETHER else 1
            if here == TOGETHER:
                four(state, b, c, a.size, factor, step, x, skip, out, a.x_stride, a.out_stride)
            else:
                one(state, b, c, a.size, factor, step, x, skip, out)
            b, c, x = b + here * a.x_stride, c + here * a.x_stride, x + here * a.x_stride
            out += here * a.out_stride
            factor += here * FACTORS * step
            done += here

    return make_scan(Args, columns)


def reference(
    x: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    z: np.ndarray,
    rate: np.ndarray,
    bias: np.ndarray,
    skip: np.ndarray,
    least: float = 0.0,
) -> np.ndarray:
    """The NumPy twin, from position 0 on: x [tokens, heads, values], b and c [tokens, groups, size], z [tokens, heads],
    rate, bias and skip [heads] -> like x."""
    tokens, heads, values = x.shape
    each, size = heads // b.shape[1], b.shape[2]
    wide_b, wide_c = (np.repeat(part.astype(np.float64), each, axis=1) for part in (b, c))
    step = np.maximum(np.logaddexp(0.0, z.astype(np.float64) + bias), least)
    state, result = np.zeros((heads, size, values)), np.zeros_like(x)
    for t in range(tokens):
        taken = x[t] * step[t][:, None]
        state = state * np.exp(rate * step[t])[:, None, None] + wide_b[t][:, :, None] * taken[:, None, :]
        result[t] = np.einsum("hnv,hn->hv", state, wide_c[t]) + skip[:, None] * x[t]
    return result
