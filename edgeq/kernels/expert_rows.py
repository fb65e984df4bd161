"""Rows of experts: gathered from the tokens, gated, and added up for each token (see route.py for slots)."""

import numpy as np

from edgeq.kernels.layout import SUMS_BYTES
from edgeq.kernels.quantize import make_place
from edgeq.kernels.route import SEGMENT
from edgeq.simd.exp import exp
from edgeq.simd.isa import Isa
from edgeq.simd.memory import bits_f32, load_i64
from edgeq.simd.vector import (
    add,
    device,
    div,
    fma,
    larger,
    load_f32x16,
    load_splat_f32,
    mul,
    neg,
    splat_f32,
    store_f32x16,
)


@device
def _silu_mul(gate, up):
    return mul(div(gate, add(splat_f32(np.float32(1.0)), exp(neg(gate)))), up)


@device
def _clamp(x, low, high):
    return larger(splat_f32(low), neg(larger(splat_f32(-high), neg(x))))


@device
def _clamped(gate, up, alpha, limit):
    """(up + 1) gate sigmoid(alpha gate), gate at most `limit`, up within it."""
    gate = neg(larger(splat_f32(-limit), neg(gate)))
    up = add(_clamp(up, -limit, limit), splat_f32(np.float32(1.0)))
    return mul(div(gate, add(splat_f32(np.float32(1.0)), exp(neg(mul(gate, splat_f32(alpha)))))), up)


def _make_keep(isa: Isa):
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


def _make_gather(isa: Isa):
    keep = _make_keep(isa)

    def gather(args, thread, n_threads):
        x, x_stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        out, stride, words, sums = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
        segments, sources = load_i64(args + 56), load_i64(args + 64)
        groups = (width + 31) // 32
        for s in range(load_i64(segments)):
            entry = segments + 8 + s * SEGMENT
            first, count = load_i64(entry + 8), load_i64(entry + 16)
            for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
                row = item // groups
                group = item - row * groups
                source = x + load_i64(sources + (first + row) * 8) * x_stride + group * 128
                low, high = load_f32x16(source), load_f32x16(source + 64)
                keep(low, high, out, stride, words, sums, first, row, count, group, groups)

    return gather


def _make_gated(isa: Isa, clamped: bool):
    keep = _make_keep(isa)

    def gated(args, thread, n_threads):
        gate, up, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
        out, stride, words, sums = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40), load_i64(args + 48)
        segments, alpha, limit = load_i64(args + 56), bits_f32(load_i64(args + 64)), bits_f32(load_i64(args + 72))
        groups = (width + 31) // 32
        for s in range(load_i64(segments)):
            entry = segments + 8 + s * SEGMENT
            first, count = load_i64(entry + 8), load_i64(entry + 16)
            for item in range(count * groups * thread // n_threads, count * groups * (thread + 1) // n_threads):
                row = item // groups
                group = item - row * groups
                at = (first + row) * stride + group * 128
                if clamped:
                    low = _clamped(load_f32x16(gate + at), load_f32x16(up + at), alpha, limit)
                    high = _clamped(load_f32x16(gate + at + 64), load_f32x16(up + at + 64), alpha, limit)
                else:
                    low = _silu_mul(load_f32x16(gate + at), load_f32x16(up + at))
                    high = _silu_mul(load_f32x16(gate + at + 64), load_f32x16(up + at + 64))
                keep(low, high, out, stride, words, sums, first, row, count, group, groups)

    return gated


def _combine(args, thread, n_threads):
    out, out_stride, width = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    rows, stride, top_k = load_i64(args + 24), load_i64(args + 32), load_i64(args + 40)
    slots, weights, count = load_i64(args + 48), load_i64(args + 56), load_i64(load_i64(args + 64))
    vectors = (width + 15) // 16
    for item in range(count * vectors * thread // n_threads, count * vectors * (thread + 1) // n_threads):
        token = item // vectors
        at = (item - token * vectors) * 64
        target = out + token * out_stride + at
        total = load_f32x16(target)
        for i in range(token * top_k, (token + 1) * top_k):
            row = load_f32x16(rows + load_i64(slots + 8 * i) * stride + at)
            total = fma(row, load_splat_f32(weights + 4 * i), total)
        store_f32x16(target, total)


def make(variant: str, isa: Isa):
    """`gather`: x, x stride, width, out, out stride, words (or 0), sums, segments, sources. Copies each slot's token.

    `silu_mul`: gate, up, width, out, stride of all three, words (or 0), sums, segments, alpha, limit (f32 bits).
    silu(gate) * up. `clamped`: the same; (up + 1) gate sigmoid(alpha gate), gate at most the limit, up within it.

    `combine`: out, out stride, width, rows, their stride, top_k, slots, weights, token count address. Adds to each
    token the weighted rows of its experts, in falling order of weight.
    """
    if variant == "combine":
        return _combine
    return _make_gather(isa) if variant == "gather" else _make_gated(isa, variant == "clamped")


def reference(rows: np.ndarray, slots: np.ndarray, weights: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The NumPy twin of `combine`: rows [slots, width], slots and weights [tokens, top_k], out [tokens, width]."""
    return (out + (rows[slots].astype(np.float64) * weights[:, :, None]).sum(axis=1)).astype(np.float32)
