"""Routing of a mixture of experts: which experts a token goes to, and the tokens of each expert side by side.

`segments` (int64) holds the number of experts that have tokens, then of each: its number, its first slot, its tokens.
A slot is a row of the buffers that experts work on. Segments begin at multiples of 16 slots, so that each can be
packed in tiles of its own.
"""

import numpy as np

from edgeq.simd.exp import exp
from edgeq.simd.isa import Isa
from edgeq.simd.memory import bits_f32, load_f32, load_i64, store_f32, store_i64
from edgeq.simd.vector import (
    add,
    device,
    larger,
    load_f32x16,
    max_f32,
    select_below,
    splat_f32,
    sub,
    sum_f32,
    zero_f32x16,
)

SEGMENT = 24  # bytes of a segment's entry
_LOWEST = np.float32(-np.inf)


@device
def _exp(x):
    return max_f32(exp(splat_f32(x)))


@device
def _largest(logits, experts):
    largest = splat_f32(_LOWEST)
    for i in range(0, experts, 16):
        largest = larger(largest, select_below(experts - i, load_f32x16(logits + 4 * i), splat_f32(_LOWEST)))
    return max_f32(largest)


@device
def _total(logits, experts, largest):
    total = zero_f32x16()
    for i in range(0, experts, 16):
        weight = exp(sub(load_f32x16(logits + 4 * i), splat_f32(largest)))
        total = add(total, select_below(experts - i, weight, zero_f32x16()))
    return sum_f32(total)


@device
def _next(logits, experts, above, last):
    """The expert that follows in falling order of logits, rising order of numbers: after `last`, whose logit is
    `above`."""
    best = -1
    best_logit = _LOWEST
    for e in range(experts):
        logit = load_f32(logits + 4 * e)
        follows = logit < above or (logit == above and e > last)
        if follows and (best < 0 or logit > best_logit):
            best, best_logit = e, logit
    return best


def _choose(args, thread, n_threads):
    logits, stride, experts = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    top_k, normalized = load_i64(args + 24), load_i64(args + 32)
    chosen, weights, count = load_i64(args + 40), load_i64(args + 48), load_i64(load_i64(args + 56))
    factor = bits_f32(load_i64(args + 64))
    for token in range(count * thread // n_threads, count * (thread + 1) // n_threads):
        row = logits + token * stride
        largest = _largest(row, experts)
        total = np.float32(0.0) if normalized != 0 else _total(row, experts, largest)
        above, last = np.float32(np.inf), -1
        for k in range(top_k):
            # NaN logits follow nothing: such a token goes to expert 0, and stays NaN
            last = max(0, _next(row, experts, above, last))
            above = load_f32(row + 4 * last)
            weight = _exp(above - largest)
            store_i64(chosen + (token * top_k + k) * 8, last)
            store_f32(weights + (token * top_k + k) * 4, weight)
            if normalized != 0:
                total += weight
        for k in range(top_k):
            at = weights + (token * top_k + k) * 4
            store_f32(at, load_f32(at) / total * factor)


def _group(args, thread, n_threads):
    experts, top_k = load_i64(args), load_i64(args + 8)
    chosen, slots, sources = load_i64(args + 16), load_i64(args + 24), load_i64(args + 32)
    segments, cursors = load_i64(args + 40), load_i64(args + 48)
    pairs = load_i64(load_i64(args + 56)) * top_k
    if thread != 0:
        return
    for e in range(experts):
        store_i64(cursors + 8 * e, 0)
    for i in range(pairs):
        at = cursors + 8 * load_i64(chosen + 8 * i)
        store_i64(at, load_i64(at) + 1)
    found, slot = 0, 0
    for e in range(experts):
        n = load_i64(cursors + 8 * e)
        store_i64(cursors + 8 * e, slot)
        if n != 0:
            entry = segments + 8 + found * SEGMENT
            store_i64(entry, e)
            store_i64(entry + 8, slot)
            store_i64(entry + 16, n)
            found += 1
            slot += (n + 15) // 16 * 16
    store_i64(segments, found)
    for i in range(pairs):
        at = cursors + 8 * load_i64(chosen + 8 * i)
        slot = load_i64(at)
        store_i64(at, slot + 1)
        store_i64(slots + 8 * i, slot)
        store_i64(sources + 8 * slot, i // top_k)


def make(variant: str, isa: Isa):
    """`choose`: logits, stride, experts, top_k, 1 if weights are normalized over the chosen, chosen experts (int64
    [tokens][top_k]), their weights (f32), token count address, a factor of the weights (f32 bits).

    `group`: experts, top_k, chosen, slots (int64 like chosen), sources (int64 [slots], the token in each), segments,
    scratch (int64 [experts]), token count address. One thread does it: it is a pass over a few numbers per token.
    """
    return {"choose": _choose, "group": _group}[variant]


def reference(logits: np.ndarray, top_k: int, normalized: bool, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The NumPy twin of `choose`: [tokens, experts] f32 -> experts int64 [tokens, top_k], weights f32."""
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    of_chosen = np.take_along_axis(weights, chosen, axis=1)
    total = (of_chosen if normalized else weights).sum(axis=1, keepdims=True)
    return chosen, (of_chosen / total * factor).astype(np.float32)
