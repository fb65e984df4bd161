"""Rows of experts: gathered from the tokens, gated, and added up for each token. Steps of ops/experts.py."""

from typing import NamedTuple

import numpy as np

from edgeq.kernels.layout import SUMS_BYTES
from edgeq.ops.route import SEGMENT, Segment

ACTIVATIONS = ("gelu_tanh", "relu")  # of gates, beside silu
ALONE = ("relu2",)  # of experts without a gate
GATES = ("silu_mul", "clamped", *ACTIVATIONS, *ALONE)


class Gather(NamedTuple):
    x: int
    x_stride: int  # bytes
    width: int
    out: int
    out_stride: int  # bytes
    words: int  # or 0
    sums: int
    segments: int  # see route.py
    sources: int  # the pair of a token and an expert in each slot
    top_k: int  # pairs of a token
    weights: int  # f32 of each pair, by which rows are multiplied, or 0


class Gated(NamedTuple):
    gate: int
    up: int
    width: int
    out: int
    stride: int  # of all three, in bytes
    words: int  # or 0
    sums: int
    segments: int  # see route.py
    alpha: int  # f32 bits, as the limit: of `clamped`
    limit: int


class Combine(NamedTuple):
    out: int
    out_stride: int  # bytes
    width: int
    rows: int
    rows_stride: int  # bytes
    top_k: int
    slots: int
    weights: int  # f32 of each pair, or 0: all are 1
    tokens: int  # how many, at this address
    fresh: int  # 1 if what `out` holds does not count


def make(variant, isa):
    """`gather` copies each slot's token, perhaps weighted. `silu_mul`: silu(gate) * up, and so with the functions of
    ACTIVATIONS; those of ALONE are of the gate, without up.
    `clamped`: (up + 1) gate sigmoid(alpha gate), gate at most the limit, up within it. `combine` adds to each token the
    weighted rows of its experts, in falling order of weight."""
    if variant == "combine":
        return _make_combine()
    return _make_gather(isa) if variant == "gather" else _make_gated(isa, variant)


def _make_keep(isa):
    from edgeq.kernels.pack_rows import make_place
    from edgeq.simd.vector import device, store_f32x16

    place = make_place(isa.tile)

    @device
    def keep(low, high, out, stride, words, sums, first, row, count, group, groups):
        """32 values of a segment's row: packed if `words` is not 0, else as f32."""
        if words != 0:
            at = first * groups
            place(low, high, words + at * 32, sums + at * SUMS_BYTES, row, group, groups, count)
        else:
            target = out + (first + row) * stride + group * 128
            store_f32x16(target, low)
            store_f32x16(target + 64, high)

    return keep


def _make_gather(isa):
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import load_f32x16, load_splat_f32, mul

    arguments, segment, keep = words_of(Gather), words_of(Segment), _make_keep(isa)

    def gather(args, thread, n_threads):
        a = arguments(args)
        groups = (a.width + 31) // 32
        for s in range(load_i64(a.segments)):
            _, first, count = segment(a.segments + 8 + s * SEGMENT)
            for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
                row = item // groups
                group = item - row * groups
                pair = load_i64(a.sources + (first + row) * 8)
                source = a.x + pair // a.top_k * a.x_stride + group * 128
                low, high = load_f32x16(source), load_f32x16(source + 64)
                if a.weights != 0:
                    weight = load_splat_f32(a.weights + 4 * pair)
                    low, high = mul(low, weight), mul(high, weight)
                keep(low, high, a.out, a.out_stride, a.words, a.sums, first, row, count, group, groups)

    return gather


def _make_gated(isa, variant):
    from edgeq.ops.activation import functions
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
    from edgeq.simd.memory import bits_f32, load_i64
    from edgeq.simd.vector import add, device, div, larger, load_f32x16, mul, neg, splat_f32

    arguments, segment, keep = words_of(Gated), words_of(Segment), _make_keep(isa)

    @device
    def silu_mul(gate, up, alpha, limit):
        return mul(div(gate, add(splat_f32(np.float32(1.0)), exp(neg(gate)))), up)

    @device
    def clamp(x, low, high):
        return larger(splat_f32(low), neg(larger(splat_f32(-high), neg(x))))

    @device
    def clamped(gate, up, alpha, limit):
        gate = neg(larger(splat_f32(-limit), neg(gate)))
        up = add(clamp(up, -limit, limit), splat_f32(np.float32(1.0)))
        return mul(div(gate, add(splat_f32(np.float32(1.0)), exp(neg(mul(gate, splat_f32(alpha)))))), up)

    @device
    def activated(gate, up, alpha, limit):
        return mul(activation(gate, 0), up)

    @device
    def alone(gate, up, alpha, limit):
        return activation(gate, 0)

    if variant in (*ACTIVATIONS, *ALONE):
        activation, function = functions()[variant], alone if variant in ALONE else activated
    else:
        function = {"clamped": clamped, "silu_mul": silu_mul}[variant]

    def gated(args, thread, n_threads):
        a = arguments(args)
        alpha, limit, groups = bits_f32(a.alpha), bits_f32(a.limit), (a.width + 31) // 32
        for s in range(load_i64(a.segments)):
            _, first, count = segment(a.segments + 8 + s * SEGMENT)
            for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
                row = item // groups
                group = item - row * groups
                at = (first + row) * a.stride + group * 128
                low = function(load_f32x16(a.gate + at), load_f32x16(a.up + at), alpha, limit)
                high = function(load_f32x16(a.gate + at + 64), load_f32x16(a.up + at + 64), alpha, limit)
                keep(low, high, a.out, a.stride, a.words, a.sums, first, row, count, group, groups)

    return gated


def _make_combine():
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import fma, load_f32x16, load_splat_f32, splat_f32, store_f32x16, zero_f32x16

    arguments = words_of(Combine)

    def combine(args, thread, n_threads):
        a = arguments(args)
        count, vectors = load_i64(a.tokens), (a.width + 15) // 16
        for item in range(count * vectors * thread // n_threads, count * vectors * (thread + 1) // n_threads):
            token = item // vectors
            at = (item - token * vectors) * 64
            target = a.out + token * a.out_stride + at
            total = zero_f32x16() if a.fresh != 0 else load_f32x16(target)
            for i in range(token * a.top_k, (token + 1) * a.top_k):
                row = load_f32x16(a.rows + load_i64(a.slots + 8 * i) * a.rows_stride + at)
                weight = load_splat_f32(a.weights + 4 * i) if a.weights != 0 else splat_f32(np.float32(1.0))
                total = fma(row, weight, total)
            store_f32x16(target, total)

    return combine


def reference(rows: np.ndarray, slots: np.ndarray, weights: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The NumPy twin of `combine`: rows [slots, width], slots and weights [tokens, top_k], out [tokens, width]."""
    return (out + (rows[slots].astype(np.float64) * weights[:, :, None]).sum(axis=1)).astype(np.float32)


def gated_reference(gate: np.ndarray, up: np.ndarray, alpha: float = 1.0, limit: float = 0.0) -> np.ndarray:
    """The NumPy twin of `silu_mul`, and with a `limit` of `clamped`: f32 [slots, width] each. Those of ACTIVATIONS:
    activation.reference."""
    x, y = gate.astype(np.float64), up.astype(np.float64)
    if limit:
        x, y = np.minimum(x, limit), np.clip(y, -limit, limit) + 1
    with np.errstate(over="ignore"):
        return (y * x / (1 + np.exp(-alpha * x))).astype(np.float32)
