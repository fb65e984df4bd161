"""Kimi's delta rule (arXiv:2510.26692): that of delta_net.py, but each channel of a key forgets by itself.

    S = diag(g) S,    S = S + k (beta (v - S^T k))^T,    out = S^T q

with q and k normed to length 1 and q over sqrt(its size), g = exp(a softplus(x + bias)) per token and channel, beta =
sigmoid(y) per token and head. The state is computed token by token, 16 columns at a time.
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

EPS = 1e-6  # added to the squared lengths of q and k
ALPHA, GAMMA, RHO, SIGMA, FACTORS = range(5)  # of a row and head, see `make`


class Args(NamedTuple):
    x: int  # rows of q, k and v
    x_stride: int  # bytes
    forget: int  # rows of what the decays are made of, one value per channel
    forget_stride: int  # bytes
    beta: int  # rows of what beta is made of, one value per head
    beta_stride: int  # bytes
    rate: int  # f32 per head: a
    bias: int  # f32 per channel
    heads: int
    size: int  # of a head's q, k and v
    scale: int  # of q, f32 bits
    factors: int  # f32 [rows, FACTORS, heads, rounded up to 16]
    decays: int  # f32 [rows, heads, size]
    parts: int  # 16 columns of a head each
    part_bytes: int
    kept: int  # where the state begins in a page: f32 [head, value / 16, key, 16]
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address
    tokens: int  # how many rows, at this address


@dataclass(frozen=True)
class ChannelDelta(Op):
    """x holds q, k and v of `heads` heads, `forget` one value per channel of k, `beta` one per head; `rate` is a tensor
    of one per head, `bias` of one per channel. A head's size is a multiple of 16."""

    x: Value
    forget: Value
    beta: Value
    rate: str
    bias: str
    heads: int
    layer: int
    kernels: ClassVar[Variants] = {"channel_delta": lambda isa: ["factors", "scan"]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.forget, self.beta

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return self.forget.width, False

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {(self.layer, "state"): RecurrentState(4 * self.forget.width * (self.forget.width // self.heads))}

    def lower(self, low: Lowering, out: Value) -> None:
        x, forget, beta = (low.buffer(value) for value in self.reads)
        y, kept, size = low.buffer(out), low.kept((self.layer, "state")), out.width // self.heads
        factors = low.scratch.take(low.capacity[False] * FACTORS * round_up(self.heads, 16) * 4)
        decays = low.scratch.take(low.capacity[False] * out.width * 4)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            forget=forget.address,
            forget_stride=forget.stride,
            beta=beta.address,
            beta_stride=beta.stride,
            rate=low.vector(self.rate),
            bias=low.vector(self.bias),
            heads=self.heads,
            size=size,
            scale=bits(size**-0.5),
            factors=int(factors.ctypes.data),
            decays=int(decays.ctypes.data),
            parts=out.width // 16,
            part_bytes=64 * size,
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
            tokens=low.tables.count(TOKENS),
        )
        low.tape.add("channel_delta:factors", args, [x, forget, beta], [factors, decays])
        low.tape.add("channel_delta:scan", args, [x, factors, decays], [y, kept])
        low.scratch.release(factors)
        low.scratch.release(decays)


def make(variant, isa):
    """With keys and queries as they come, r_k and r_q what norms them (r_q with the scale), and u the correction times
    r_k, the rule is

        S = diag(g) S,  u = alpha v - gamma S^T k,  out = rho S^T q + sigma u,  S = S + k u^T
        alpha = beta r_k,  gamma = beta r_k^2,  rho = r_q,  sigma = r_q k.q

    `factors` computes these and g, `scan` the rest. The state is written for the token before, and forgets, in the same
    turn in which both sums of a token are taken of it.
    """
    return _make_factors() if variant == "factors" else _make_scan()


def _make_factors():
    """Threads share the rows, and the heads in them."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import bits_f32, load_i64, store_f32
    from edgeq.simd.softplus import softplus
    from edgeq.simd.vector import (
        add,
        device,
        div,
        fma,
        load_f32x16,
        load_splat_f32,
        max_f32,
        mul,
        neg,
        splat_f32,
        sqrt_f32,
        store_f32x16,
        sum_f32,
        zero_f32x16,
    )

    arguments, least = words_of(Args), np.float32(EPS)

    @device
    def dot(x, y, size):
        total = zero_f32x16()
        for i in range(0, size, 16):
            total = fma(load_f32x16(x + 4 * i), load_f32x16(y + 4 * i), total)
        return sum_f32(total)

    @device
    def sigmoid_at(x):
        one = splat_f32(np.float32(1.0))
        return max_f32(div(one, add(one, exp(neg(load_splat_f32(x))))))

    def kernel(args, thread, n_threads):
        a = arguments(args)
        step, items, wide = (a.heads + 15) // 16 * 64, load_i64(a.tokens) * a.heads, 4 * a.size
        for item in range(items * thread // n_threads, items * (thread + 1) // n_threads):
            token = item // a.heads
            head = item - token * a.heads
            q = a.x + token * a.x_stride + head * wide
            k = q + a.heads * wide
            for_q = bits_f32(a.scale) / sqrt_f32(dot(q, q, a.size) + least)
            for_k = np.float32(1.0) / sqrt_f32(dot(k, k, a.size) + least)
            alpha = sigmoid_at(a.beta + token * a.beta_stride + 4 * head) * for_k
            place = a.factors + token * FACTORS * step + head * 4
            store_f32(place + ALPHA * step, alpha)
            store_f32(place + GAMMA * step, alpha * for_k)
            store_f32(place + RHO * step, for_q)
            store_f32(place + SIGMA * step, dot(k, q, a.size) * for_q)
            rate = load_splat_f32(a.rate + 4 * head)
            forget, bias = a.forget + token * a.forget_stride + head * wide, a.bias + head * wide
            decays = a.decays + (token * a.heads + head) * wide
            for at in range(0, wide, 64):
                slope = softplus(add(load_f32x16(forget + at), load_f32x16(bias + at)))
                store_f32x16(decays + at, exp(mul(slope, rate)))

    return kernel


def _make_scan():
    """A part is 16 columns of a head's state."""
    from edgeq.kernels.scan import make_scan
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.vector import add, device, fma, load_f32x16, load_splat_f32, mul, neg, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    @device
    def forgotten(state, decay):
        """A row of the state as it is before a token, kept."""
        row = mul(load_f32x16(state), load_splat_f32(decay))
        store_f32x16(state, row)
        return row

    @device
    def changed(state, decay, before, u):
        """The same, of a state that has not been written for the token before, whose key is at `before`."""
        row = mul(fma(load_splat_f32(before), u, load_f32x16(state)), load_splat_f32(decay))
        store_f32x16(state, row)
        return row

    @device
    def first_sums(state, decay, k, q, size):
        """S^T k and S^T q of a state that has been written."""
        k0, k1, q0, q1 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for i in range(0, size, 2):
            even, odd = forgotten(state + 64 * i, decay + 4 * i), forgotten(state + 64 * i + 64, decay + 4 * i + 4)
            k0, k1 = fma(even, load_splat_f32(k + 4 * i), k0), fma(odd, load_splat_f32(k + 4 * i + 4), k1)
            q0, q1 = fma(even, load_splat_f32(q + 4 * i), q0), fma(odd, load_splat_f32(q + 4 * i + 4), q1)
        return add(k0, k1), add(q0, q1)

    @device
    def next_sums(state, decay, before, u, k, q, size):
        """The same of one that has not."""
        k0, k1, q0, q1 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for i in range(0, size, 2):
            even = changed(state + 64 * i, decay + 4 * i, before + 4 * i, u)
            odd = changed(state + 64 * i + 64, decay + 4 * i + 4, before + 4 * i + 4, u)
            k0, k1 = fma(even, load_splat_f32(k + 4 * i), k0), fma(odd, load_splat_f32(k + 4 * i + 4), k1)
            q0, q1 = fma(even, load_splat_f32(q + 4 * i), q0), fma(odd, load_splat_f32(q + 4 * i + 4), q1)
        return add(k0, k1), add(q0, q1)

    @device
    def columns(args, state, token, rows, part):
        a = arguments(args)
        head, at, step, size = part // (a.size // 16), part * 64, (a.heads + 15) // 16 * 64, a.size
        q = a.x + token * a.x_stride + head * size * 4
        k = q + a.heads * size * 4
        v, out = a.x + token * a.x_stride + a.heads * size * 8 + at, a.out + token * a.out_stride + at
        factor, decay = a.factors + token * FACTORS * step + head * 4, a.decays + (token * a.heads + head) * size * 4
        of_k, of_q = first_sums(state, decay, k, q, size)
        for row in range(rows):
            gamma, alpha = load_splat_f32(factor + GAMMA * step), load_splat_f32(factor + ALPHA * step)
            u = fma(neg(gamma), of_k, mul(alpha, load_f32x16(v)))
            sigma, rho = load_splat_f32(factor + SIGMA * step), load_splat_f32(factor + RHO * step)
            store_f32x16(out, fma(sigma, u, mul(rho, of_q)))
            decay += a.heads * size * 4
            if row + 1 < rows:
                of_k, of_q = next_sums(state, decay, k, u, k + a.x_stride, q + a.x_stride, size)
            else:
                for i in range(size):
                    store_f32x16(state + 64 * i, fma(load_splat_f32(k + 4 * i), u, load_f32x16(state + 64 * i)))
            k, q, v, out = k + a.x_stride, q + a.x_stride, v + a.x_stride, out + a.out_stride
            factor += FACTORS * step

    return make_scan(Args, columns)


def reference(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    forget: np.ndarray,
    beta: np.ndarray,
    rate: np.ndarray,
    bias: np.ndarray,
) -> np.ndarray:
    """The NumPy twin, from position 0 on: q, k, v and forget [tokens, heads, size], beta [tokens, heads], rate [heads],
    bias [heads, size] -> like v."""
    tokens, heads, size = v.shape
    wide_q, wide_k = (x.astype(np.float64) for x in (q, k))
    wide_q, wide_k = (x / np.sqrt((x * x).sum(axis=2, keepdims=True) + EPS) for x in (wide_q, wide_k))
    kept = np.exp(rate[:, None] * np.logaddexp(0.0, forget.astype(np.float64) + bias))
    strength = 1.0 / (1.0 + np.exp(-beta.astype(np.float64)))
    state, result = np.zeros((heads, size, size)), np.zeros_like(v)
    for t in range(tokens):
        state *= kept[t][:, :, None]
        known = np.einsum("hkv,hk->hv", state, wide_k[t])
        correction = (v[t] - known) * strength[t][:, None]
        state += wide_k[t][:, :, None] * correction[:, None, :]
        result[t] = np.einsum("hkv,hk->hv", state, wide_q[t]) * size**-0.5
    return result
