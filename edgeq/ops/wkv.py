"""RWKV-7's recurrence (arXiv:2503.14456): a layer's memory is a matrix per head, of which each key forgets at its own
rate; what it says to one key is taken away, in part, and another one learnt.

    S = S diag(w) + (S n) b^T + v k~^T,    out = S r
    w = exp(-e^(-1/2) sigmoid(decay)),  n = -k kappa / |k kappa|,  b = -n sigmoid(a)
    k~ = k (1 + (sigmoid(a) - 1) alpha)

What a head gives is normed, (out - mean) / sqrt(variance + eps), times weights and plus biases; v times the sum of
r k~ rho is added, and all of it multiplied by a gate. kappa, alpha and rho are vectors of the model. The state is
computed token by token, 16 rows of S at a time: these do not depend on one another.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.pages import Kept, RecurrentState
from edgeq.graph.row_tables import RUNS, TOKENS
from edgeq.graph.value import Value

SLOWEST = -float(np.exp(-0.5))  # of a key that forgets fastest, log w
LEAST = 1e-12  # what the length of a key counts as at least, where it divides
DECAY, KEY, AWAY, BACK, PREPARED = range(5)  # of a row: w, k~, n and b, each as wide as the heads together


class Args(NamedTuple):
    r: int
    decay: int
    k: int
    v: int
    a: int
    gate: int  # or 0
    stride: int  # of all six, in bytes
    kappa: int
    alpha: int
    rho: int
    weight: int  # of the norm, or 0 without one
    bias: int
    eps: int  # f32 bits
    heads: int
    size: int  # of a head
    prepared: int  # f32 [rows, PREPARED, heads * size]
    parts: int  # 16 rows of a head's S each
    part_bytes: int
    kept: int  # where the state begins in a page: f32 [head, size / 16, key, 16]
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address
    tokens: int  # how many rows, at this address


class Vectors(NamedTuple):
    """Names of the vectors, of a value for each of all heads; those of the norm are "" where there is none."""

    kappa: str
    alpha: str
    rho: str
    weight: str = ""
    bias: str = ""


@dataclass(frozen=True)
class Wkv(Op):
    """Of heads of `size` values, a multiple of 16; without a `gate` nothing is multiplied."""

    r: Value
    decay: Value
    k: Value
    v: Value
    a: Value
    gate: Value | None
    vectors: Vectors
    size: int
    eps: float
    layer: int
    kernels: ClassVar[Variants] = {"wkv": lambda isa: ["prepare", "scan", "finish"]}

    @property
    def reads(self) -> tuple[Value, ...]:
        found = self.r, self.decay, self.k, self.v, self.a
        return found if self.gate is None else (*found, self.gate)

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {(self.layer, "state"): RecurrentState(4 * self.size * self.r.width)}

    def lower(self, low: Lowering, out: Value) -> None:
        read = [low.buffer(value) for value in self.reads]
        assert len({buffer.stride for buffer in read}) == 1
        r, decay, k, v, a = read[:5]
        y, kept = low.buffer(out), low.kept((self.layer, "state"))
        prepared = low.scratch.take(low.capacity[False] * PREPARED * out.width * 4)
        args = Args(
            r=r.address,
            decay=decay.address,
            k=k.address,
            v=v.address,
            a=a.address,
            gate=read[5].address if self.gate else 0,
            stride=r.stride,
            kappa=low.vector(self.vectors.kappa),
            alpha=low.vector(self.vectors.alpha),
            rho=low.vector(self.vectors.rho),
            weight=low.vector(self.vectors.weight),
            bias=low.vector(self.vectors.bias),
            eps=bits(self.eps),
            heads=out.width // self.size,
            size=self.size,
            prepared=int(prepared.ctypes.data),
            parts=out.width // 16,
            part_bytes=64 * self.size,
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
            tokens=low.tables.count(TOKENS),
        )
        low.tape.add("wkv:prepare", args, [decay, k, a], [prepared])
        low.tape.add("wkv:scan", args, [r, v, prepared], [y, kept])
        low.tape.add("wkv:finish", args, [*read, prepared], [y])
        low.scratch.release(prepared)


def make(variant, isa):
    """`prepare` and `finish` do what each token and head needs by itself, `scan` the state. Both sums of a token are
    taken of the state in the same turn in which that is written; their order is the same for any split."""
    return {"prepare": _make_prepare, "scan": _make_scan, "finish": _make_finish}[variant]()


def _make_prepare():
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import load_i64
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
        sub,
        sum_f32,
        zero_f32x16,
    )

    arguments, slowest, least = words_of(Args), np.float32(SLOWEST), np.float32(LEAST)

    @device
    def sigmoid(x):
        one = splat_f32(np.float32(1.0))
        return div(one, add(one, exp(neg(x))))

    @device
    def inverse_length(k, kappa, size):
        total = zero_f32x16()
        for i in range(0, 4 * size, 64):
            key = mul(load_f32x16(k + i), load_f32x16(kappa + i))
            total = fma(key, key, total)
        length = sqrt_f32(sum_f32(total))
        return np.float32(1.0) / (least if length < least else length)  # in this order a NaN stays one

    def kernel(args, thread, n_threads):
        a = arguments(args)
        items, step = load_i64(a.tokens) * a.heads, a.heads * a.size * 4
        one = splat_f32(np.float32(1.0))
        for item in range(items * thread // n_threads, items * (thread + 1) // n_threads):
            token = item // a.heads
            head = (item - token * a.heads) * a.size * 4
            row, out = token * a.stride + head, a.prepared + token * PREPARED * step + head
            factor = splat_f32(-inverse_length(a.k + row, a.kappa + head, a.size))
            for i in range(0, 4 * a.size, 64):
                key, rate = load_f32x16(a.k + row + i), sigmoid(load_f32x16(a.a + row + i))
                away = mul(mul(key, load_f32x16(a.kappa + head + i)), factor)
                changed = fma(mul(key, sub(rate, one)), load_f32x16(a.alpha + head + i), key)
                decay = exp(mul(sigmoid(load_f32x16(a.decay + row + i)), splat_f32(slowest)))
                store_f32x16(out + DECAY * step + i, decay)
                store_f32x16(out + KEY * step + i, changed)
                store_f32x16(out + AWAY * step + i, away)
                store_f32x16(out + BACK * step + i, neg(mul(away, rate)))

    return kernel


def _make_scan():
    """A part is 16 rows of a head's S, which lie turned: 16 values for each key."""
    from edgeq.kernels.scan import make_scan
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.vector import add, device, fma, load_f32x16, load_splat_f32, mul, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    @device
    def product(state, x, size):
        """S x."""
        even, odd = zero_f32x16(), zero_f32x16()
        for i in range(0, size, 2):
            even = fma(load_f32x16(state + 64 * i), load_splat_f32(x + 4 * i), even)
            odd = fma(load_f32x16(state + 64 * i + 64), load_splat_f32(x + 4 * i + 4), odd)
        return add(even, odd)

    @device
    def changed(state, at, step, v, said):
        """What S has of a key after a token, kept; `at` is the key's decay, the other values lie `step` apart."""
        row = mul(load_f32x16(state), load_splat_f32(at))
        row = fma(load_splat_f32(at + BACK * step), said, fma(load_splat_f32(at + KEY * step), v, row))
        store_f32x16(state, row)
        return row

    @device
    def columns(args, state, token, rows, part):
        a = arguments(args)
        step, head = a.heads * a.size * 4, part // (a.size // 16) * a.size * 4
        at, r = a.prepared + token * PREPARED * step + head, a.r + token * a.stride + head
        v, out = a.v + token * a.stride + part * 64, a.out + token * a.out_stride + part * 64
        said = product(state, at + AWAY * step, a.size)
        for row in range(rows):
            following = at + PREPARED * step if row + 1 < rows else at
            away, value = following + AWAY * step, load_f32x16(v)
            r0, r1, n0, n1 = zero_f32x16(), zero_f32x16(), zero_f32x16(), zero_f32x16()
            for i in range(0, a.size, 2):
                even = changed(state + 64 * i, at + 4 * i, step, value, said)
                odd = changed(state + 64 * i + 64, at + 4 * i + 4, step, value, said)
                r0, r1 = fma(even, load_splat_f32(r + 4 * i), r0), fma(odd, load_splat_f32(r + 4 * i + 4), r1)
                n0 = fma(even, load_splat_f32(away + 4 * i), n0)
                n1 = fma(odd, load_splat_f32(away + 4 * i + 4), n1)
            store_f32x16(out, add(r0, r1))
            said = add(n0, n1)
            at, r, v, out = following, r + a.stride, v + a.stride, out + a.out_stride

    return make_scan(Args, columns)


def _make_finish():
    from edgeq.kernels.moments import mean_of, variance_of
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import (
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
    def sum_of_products(r, k, rho, size):
        total = zero_f32x16()
        for i in range(0, 4 * size, 64):
            total = fma(mul(load_f32x16(r + i), load_f32x16(k + i)), load_f32x16(rho + i), total)
        return splat_f32(sum_f32(total))

    def kernel(args, thread, n_threads):
        a = arguments(args)
        items, step = load_i64(a.tokens) * a.heads, a.heads * a.size * 4
        for item in range(items * thread // n_threads, items * (thread + 1) // n_threads):
            token = item // a.heads
            head = (item - token * a.heads) * a.size * 4
            row, out = token * a.stride + head, a.out + token * a.out_stride + head
            key = a.prepared + (token * PREPARED + KEY) * step + head
            said = sum_of_products(a.r + row, key, a.rho + head, a.size)
            middle = mean_of(out, a.size)
            factor = splat_f32(np.float32(1.0) / sqrt_f32(variance_of(out, a.size, middle) + bits_f32(a.eps)))
            for i in range(0, 4 * a.size, 64):
                value = load_f32x16(out + i)
                if a.weight != 0:
                    value = mul(sub(value, splat_f32(middle)), factor)
                    value = fma(value, load_f32x16(a.weight + head + i), load_f32x16(a.bias + head + i))
                value = fma(load_f32x16(a.v + row + i), said, value)
                if a.gate != 0:
                    value = mul(value, load_f32x16(a.gate + row + i))
                store_f32x16(out + i, value)

    return kernel


def reference(
    r: np.ndarray,
    decay: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    a: np.ndarray,
    gate: np.ndarray | None,
    vectors: np.ndarray,
    norm: np.ndarray | None,
    eps: float,
) -> np.ndarray:
    """The NumPy twin, from position 0 on: r, decay, k, v, a and gate [tokens, heads, size], vectors (kappa, alpha and
    rho) [3, heads, size], norm (weights and biases) [2, heads, size] -> like v."""
    tokens, heads, size = v.shape
    r, decay, k, v, a = (one.astype(np.float64) for one in (r, decay, k, v, a))
    kappa, alpha, rho = vectors.astype(np.float64)
    w, rate = np.exp(SLOWEST / (1.0 + np.exp(-decay))), 1.0 / (1.0 + np.exp(-a))
    away = -k * kappa
    away = away / np.maximum(np.sqrt((away * away).sum(axis=2, keepdims=True)), LEAST)
    back, key = -away * rate, k * (1.0 + (rate - 1.0) * alpha)
    state, out = np.zeros((heads, size, size)), np.zeros(v.shape)
    for t in range(tokens):
        said = np.einsum("hvk,hk->hv", state, away[t])
        state = state * w[t][:, None, :] + said[:, :, None] * back[t][:, None, :] + v[t][:, :, None] * key[t][:, None]
        out[t] = np.einsum("hvk,hk->hv", state, r[t])
    if norm is not None:
        out = out - out.mean(axis=2, keepdims=True)
        out = out / np.sqrt((out * out).mean(axis=2, keepdims=True) + eps) * norm[0] + norm[1]
    out = out + v * (r * key * rho).sum(axis=2, keepdims=True)
    return (out if gate is None else out * gate).astype(np.float32)
