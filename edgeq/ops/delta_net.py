"""The gated delta rule (arXiv:2412.06464): a layer's memory is a matrix per head, which forgets, and is corrected by
what it would have said to a key.

    S = g S + k (beta (v - g S^T k))^T,    out = S^T q

with q and k normed to length 1 and q over sqrt(its size), g = exp(a softplus(x + bias)), beta = strength sigmoid(y) per
token and head. The state is computed token by token, 16 columns at a time: these do not depend on one another, and lie
in L1 for as long as there are tokens.
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
DECAY, ALPHA, GAMMA, RHO, SIGMA, FACTORS = range(6)  # of a row and head, see `make`


class Args(NamedTuple):
    x: int  # rows of q, k and v
    x_stride: int  # bytes
    decay: int  # rows of what the decay is made of, one value per head
    beta: int  # of what beta is
    gates_stride: int  # of both, in bytes
    rate: int  # f32 per head: a
    bias: int  # f32 per head
    heads: int  # of v
    key_heads: int  # of q and k
    turns: int  # 1 if heads of v take those in turn, 0 if neighbours share one
    key_dim: int
    value_dim: int
    scale: int  # of q, f32 bits
    strength: int  # of all betas, f32 bits
    factors: int  # f32 [rows, FACTORS, heads, rounded up to 16]
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
class DeltaNet(Op):
    """x holds q and k of `key_heads` heads of `key_dim` values, and v of `heads` heads; `decay` and `beta` one value
    per head of v, `rate` and `bias` are tensors of one, too. All sizes of heads are multiples of 16. Neighbouring heads
    of v share a key and a query, or take them `in_turn`. `strength` is the largest that beta can be."""

    x: Value
    decay: Value
    beta: Value
    rate: str
    bias: str
    heads: int
    key_heads: int
    key_dim: int
    layer: int
    in_turn: bool = False
    strength: float = 1.0
    kernels: ClassVar[Variants] = {"delta_net": lambda isa: ["factors", "scan"]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.decay, self.beta

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return self.x.width - 2 * self.key_heads * self.key_dim, False

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {(self.layer, "state"): RecurrentState(4 * self.key_dim * self.shape({})[0])}

    def lower(self, low: Lowering, out: Value) -> None:
        x, decay, beta = low.buffer(self.x), low.buffer(self.decay), low.buffer(self.beta)
        y, kept = low.buffer(out), low.kept((self.layer, "state"))
        assert decay.stride == beta.stride
        factors = low.scratch.take(low.capacity[False] * FACTORS * round_up(self.heads, 16) * 4)
        args = Args(
            x=x.address,
            x_stride=x.stride,
            decay=decay.address,
            beta=beta.address,
            gates_stride=decay.stride,
            rate=low.vector(self.rate),
            bias=low.vector(self.bias),
            heads=self.heads,
            key_heads=self.key_heads,
            turns=int(self.in_turn),
            key_dim=self.key_dim,
            value_dim=out.width // self.heads,
            scale=bits(self.key_dim**-0.5),
            strength=bits(self.strength),
            factors=int(factors.ctypes.data),
            parts=out.width // 16,
            part_bytes=64 * self.key_dim,
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
            tokens=low.tables.count(TOKENS),
        )
        low.tape.add("delta_net:factors", args, [x, decay, beta], [factors])
        low.tape.add("delta_net:scan", args, [x, factors], [y, kept])
        low.scratch.release(factors)


def make(variant, isa):
    """With keys and queries as they come, r_k and r_q what norms them (r_q with the scale), and u the correction times
    r_k, the rule is

        u = alpha v - gamma S^T k,  out = rho S^T q + sigma u,  S = decay S + k u^T
        alpha = beta r_k,  gamma = beta decay r_k^2,  rho = decay r_q,  sigma = r_q k.q

    `factors` computes what is the same for all columns, `scan` the rest. Both sums of a token are taken of the state in
    the same turn in which that is written for the token before; their order is the same for any split.
    """
    return _make_factors() if variant == "factors" else _make_scan()


def _make_factors():
    """Threads share the rows, and the groups of 16 heads in them."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import bits_f32, load_f32, load_i64, store_f32
    from edgeq.simd.softplus import softplus
    from edgeq.simd.vector import (
        add,
        device,
        div,
        fma,
        load_f32x16,
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

    def kernel(args, thread, n_threads):
        a = arguments(args)
        groups = (a.heads + 15) // 16
        step, each, items = groups * 64, a.heads // a.key_heads, load_i64(a.tokens) * groups
        one = splat_f32(np.float32(1.0))
        for item in range(items * thread // n_threads, items * (thread + 1) // n_threads):
            token = item // groups
            first = (item - token * groups) * 16
            gates, at = token * a.gates_stride + first * 4, a.factors + token * FACTORS * step
            slope = softplus(add(load_f32x16(a.decay + gates), load_f32x16(a.bias + first * 4)))
            store_f32x16(at + first * 4, exp(mul(slope, load_f32x16(a.rate + first * 4))))
            beta = div(splat_f32(bits_f32(a.strength)), add(one, exp(neg(load_f32x16(a.beta + gates)))))
            store_f32x16(at + ALPHA * step + first * 4, beta)
            for head in range(first, min(first + 16, a.heads)):
                of = head % a.key_heads if a.turns != 0 else head // each
                q = a.x + token * a.x_stride + of * a.key_dim * 4
                k = q + a.key_heads * a.key_dim * 4
                place = at + head * 4
                for_q = bits_f32(a.scale) / sqrt_f32(dot(q, q, a.key_dim) + least)
                for_k = np.float32(1.0) / sqrt_f32(dot(k, k, a.key_dim) + least)
                decay, alpha = load_f32(place), load_f32(place + ALPHA * step) * for_k
                store_f32(place + ALPHA * step, alpha)
                store_f32(place + GAMMA * step, alpha * for_k * decay)
                store_f32(place + RHO * step, decay * for_q)
                store_f32(place + SIGMA * step, dot(k, q, a.key_dim) * for_q)

    return kernel


def _make_scan():
    """A part is 16 columns of a head's state."""
    from edgeq.kernels.scan import make_scan
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.vector import add, device, fma, load_f32x16, load_splat_f32, mul, neg, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    @device
    def sums(state, k, q, size):
        """S^T k and S^T q."""
        k0, k1, q0, q1 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for i in range(0, size, 2):
            even, odd = load_f32x16(state + 64 * i), load_f32x16(state + 64 * i + 64)
            k0, k1 = fma(even, load_splat_f32(k + 4 * i), k0), fma(odd, load_splat_f32(k + 4 * i + 4), k1)
            q0, q1 = fma(even, load_splat_f32(q + 4 * i), q0), fma(odd, load_splat_f32(q + 4 * i + 4), q1)
        return add(k0, k1), add(q0, q1)

    @device
    def changed(state, decay, k, u):
        """A row of the state after a token, kept."""
        row = fma(load_splat_f32(k), u, mul(load_f32x16(state), decay))
        store_f32x16(state, row)
        return row

    @device
    def next_sums(state, decay, before, u, k, q, size):
        """The state after the token whose key is at `before`, and the sums of the one after it."""
        k0, k1, q0, q1 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
        for i in range(0, size, 2):
            even = changed(state + 64 * i, decay, before + 4 * i, u)
            odd = changed(state + 64 * i + 64, decay, before + 4 * i + 4, u)
            k0, k1 = fma(even, load_splat_f32(k + 4 * i), k0), fma(odd, load_splat_f32(k + 4 * i + 4), k1)
            q0, q1 = fma(even, load_splat_f32(q + 4 * i), q0), fma(odd, load_splat_f32(q + 4 * i + 4), q1)
        return add(k0, k1), add(q0, q1)

    @device
    def columns(args, state, token, rows, part):
        a = arguments(args)
        head, at = part // (a.value_dim // 16), part * 64
        step = (a.heads + 15) // 16 * 64
        of = head % a.key_heads if a.turns != 0 else head // (a.heads // a.key_heads)
        q = a.x + token * a.x_stride + of * a.key_dim * 4
        k = q + a.key_heads * a.key_dim * 4
        v, out = a.x + token * a.x_stride + a.key_heads * a.key_dim * 8 + at, a.out + token * a.out_stride + at
        factor = a.factors + token * FACTORS * step + head * 4
        of_k, of_q = sums(state, k, q, a.key_dim)
        for row in range(rows):
            gamma, alpha = load_splat_f32(factor + GAMMA * step), load_splat_f32(factor + ALPHA * step)
            u = fma(neg(gamma), of_k, mul(alpha, load_f32x16(v)))
            sigma, rho = load_splat_f32(factor + SIGMA * step), load_splat_f32(factor + RHO * step)
            store_f32x16(out, fma(sigma, u, mul(rho, of_q)))
            decay = load_splat_f32(factor)
            if row + 1 < rows:
                of_k, of_q = next_sums(state, decay, k, u, k + a.x_stride, q + a.x_stride, a.key_dim)
            else:
                for i in range(a.key_dim):
                    changed(state + 64 * i, decay, k + 4 * i, u)
            k, q, v, out = k + a.x_stride, q + a.x_stride, v + a.x_stride, out + a.out_stride
            factor += FACTORS * step

    return make_scan(Args, columns)


def reference(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    decay: np.ndarray,
    beta: np.ndarray,
    rate: np.ndarray,
    bias: np.ndarray,
    most: float = 1.0,
) -> np.ndarray:
    """The NumPy twin, from position 0 on: q and k [tokens, key heads, size], v [tokens, heads, values], decay and beta
    [tokens, heads], rate and bias [heads] -> like v; `most` is the strength."""
    tokens, heads, values = v.shape
    each, size = heads // k.shape[1], k.shape[2]
    wide_q, wide_k = (np.repeat(x.astype(np.float64), each, axis=1) for x in (q, k))
    wide_q, wide_k = (x / np.sqrt((x * x).sum(axis=2, keepdims=True) + EPS) for x in (wide_q, wide_k))
    kept = np.exp(rate * np.logaddexp(0.0, decay.astype(np.float64) + bias))
    strength = most / (1.0 + np.exp(-beta.astype(np.float64)))
    state, result = np.zeros((heads, size, values)), np.zeros_like(v)
    for t in range(tokens):
        state *= kept[t][:, None, None]
        known = np.einsum("hkv,hk->hv", state, wide_k[t])
        correction = (v[t] - known) * strength[t][:, None]
        state += wide_k[t][:, :, None] * correction[:, None, :]
        result[t] = np.einsum("hkv,hk->hv", state, wide_q[t]) * size**-0.5
    return result
