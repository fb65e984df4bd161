"""Routing of a mixture of experts: which experts a token goes to, and the tokens of each expert side by side.

`segments` (int64) holds the number of experts that have tokens, then of each: its number, its first slot, its tokens.
A slot is a row of the buffers that experts work on. Segments begin at multiples of 16 slots, so that each can be
packed in tiles of its own. These are steps of ops/experts.py.
"""

from typing import NamedTuple

import numpy as np


class Segment(NamedTuple):
    """The rows of an expert that has some."""

    expert: int
    first: int  # slot
    slots: int  # how many


SEGMENT = 8 * len(Segment._fields)  # bytes


class Choose(NamedTuple):
    logits: int
    stride: int  # bytes
    experts: int
    top_k: int
    normalized: int  # 1 if weights are normalized over the chosen
    chosen: int  # int64 [tokens][top_k]
    weights: int  # f32 like chosen
    tokens: int  # how many, at this address
    factor: int  # of the weights, f32 bits
    bias: int  # f32 [experts], or 0: added to what is chosen by, the scores, but not to weights
    sigmoid: int  # 1 if scores are each logit's sigmoid, 0 if they are the softmax over all
    least: int  # added to the sum of the chosen when weights are normalized, f32 bits
    groups: int  # of as many experts each
    top_groups: int  # that are chosen from: those whose two best experts are best
    scales: int  # f32 [experts], or 0: what the weight of each is multiplied by
    spread: int  # f32 bits; if not 0 each of the chosen is weighted among those near it, see make


class Group(NamedTuple):
    experts: int
    top_k: int
    chosen: int
    slots: int  # int64 like chosen
    sources: int  # int64 [slots], the pair of a token and an expert in each
    segments: int
    cursors: int  # int64 [experts], scratch
    tokens: int  # how many, at this address


def make(variant, isa):
    """`choose`: the experts of each token, in falling order. `group`: their slots; one thread does it, as it is a pass
    over a few numbers per token.

    With a `spread` the weight of each of the chosen is its part of a softmax over those experts, not chosen before it,
    whose logits x are so near to its own, y, that y - x <= spread * max(|x|, y) (SparseMixer, arXiv:2409.12136).
    """
    return {"choose": _make_choose, "group": _make_group}[variant]()


def _make_choose():
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.exp import exp
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

    arguments = words_of(Choose)
    lowest = np.float32(-np.inf)

    @device
    def exp_of(x):
        return max_f32(exp(splat_f32(x)))

    @device
    def largest_of(logits, experts):
        largest = splat_f32(lowest)
        for i in range(0, experts, 16):
            largest = larger(largest, select_below(experts - i, load_f32x16(logits + 4 * i), splat_f32(lowest)))
        return max_f32(largest)

    @device
    def total_of(logits, experts, largest):
        total = zero_f32x16()
        for i in range(0, experts, 16):
            weight = exp(sub(load_f32x16(logits + 4 * i), splat_f32(largest)))
            total = add(total, select_below(experts - i, weight, zero_f32x16()))
        return sum_f32(total)

    @device
    def weight_of(logits, e, sigmoid, largest):
        """Of expert e: its logit's sigmoid, or the exponential, which is its part of the softmax's total."""
        logit, one = load_f32(logits + 4 * e), np.float32(1.0)
        return one / (one + exp_of(-logit)) if sigmoid != 0 else exp_of(logit - largest)

    @device
    def merit_of(logits, e, bias, sigmoid, largest, whole):
        """What expert e is chosen by: its logit, or its score and its bias."""
        if bias == 0:
            return load_f32(logits + 4 * e)
        return weight_of(logits, e, sigmoid, largest) / whole + load_f32(bias + 4 * e)

    @device
    def group_merit(logits, first, end, bias, sigmoid, largest, whole):
        """The sum of the two best scores of a group's experts, with their biases."""
        best, second = lowest, lowest
        for e in range(first, end):
            merit = weight_of(logits, e, sigmoid, largest) / whole
            if bias != 0:
                merit += load_f32(bias + 4 * e)
            if merit > best:
                best, second = merit, best
            elif merit > second:
                second = merit
        return best + second

    @device
    def groups_of(logits, experts, groups, top_groups, bias, sigmoid, largest, whole):
        """The groups that are chosen from, a bit for each."""
        size, kept = experts // groups, 0
        for _ in range(top_groups):
            best, best_merit = 0, lowest
            for group in range(groups):
                if (kept >> group) & 1 == 0:
                    merit = group_merit(logits, group * size, (group + 1) * size, bias, sigmoid, largest, whole)
                    if merit > best_merit:
                        best, best_merit = group, merit
            kept |= 1 << best
        return kept

    @device
    def next_of(logits, experts, size, kept, bias, sigmoid, largest, whole, above, last):
        """The expert that follows in falling order of merit, rising order of numbers: after `last`, whose merit is
        `above`, in one of the groups `kept`, of `size` experts."""
        best = -1
        best_merit = lowest
        for e in range(experts):
            if (kept >> (e // size)) & 1 == 0:
                continue
            merit = merit_of(logits, e, bias, sigmoid, largest, whole)
            follows = merit < above or (merit == above and e > last)
            if follows and (best < 0 or merit > best_merit):
                best, best_merit = e, merit
        return best

    @device
    def weight_among_near(logits, experts, spread, above, last, best):
        """Of the expert whose logit is `best`, among those that follow `last`, whose logit is `above`."""
        total = best - best  # NaN stays
        for e in range(experts):
            logit = load_f32(logits + 4 * e)
            if (logit < above or (logit == above and e > last)) and best - logit <= spread * max(abs(logit), best):
                total += exp_of(logit - best)
        return np.float32(1.0) / total

    def choose(args, thread, n_threads):
        a = arguments(args)
        count, factor, experts, top_k = load_i64(a.tokens), bits_f32(a.factor), a.experts, a.top_k
        bias, sigmoid, grouped, spread = a.bias, a.sigmoid, a.groups != a.top_groups, bits_f32(a.spread)
        for token in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            row = a.logits + token * a.stride
            largest = largest_of(row, experts)
            whole = np.float32(1.0)
            if sigmoid == 0 and (a.normalized == 0 or bias != 0 or grouped):
                whole = total_of(row, experts, largest)
            total = bits_f32(a.least) if a.normalized != 0 else whole
            if spread != np.float32(0.0):
                total = np.float32(1.0)
            size, kept = experts, 1
            if grouped:
                size = experts // a.groups
                kept = groups_of(row, experts, a.groups, a.top_groups, bias, sigmoid, largest, whole)
            above, last = np.float32(np.inf), -1
            for k in range(top_k):
                # NaN logits follow nothing: such a token goes to expert 0, and stays NaN
                before, limit = last, above
                last = max(0, next_of(row, experts, size, kept, bias, sigmoid, largest, whole, above, last))
                above = merit_of(row, last, bias, sigmoid, largest, whole)
                weight = weight_of(row, last, sigmoid, largest)
                if spread != np.float32(0.0):
                    weight = weight_among_near(row, experts, spread, limit, before, above)
                store_i64(a.chosen + (token * top_k + k) * 8, last)
                store_f32(a.weights + (token * top_k + k) * 4, weight)
                if a.normalized != 0:
                    total += weight
            for k in range(top_k):
                at = a.weights + (token * top_k + k) * 4
                weight = load_f32(at) / total * factor
                if a.scales != 0:
                    weight *= load_f32(a.scales + 4 * load_i64(a.chosen + (token * top_k + k) * 8))
                store_f32(at, weight)

    return choose


def _make_group():
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64, store_i64

    arguments = words_of(Group)

    def group(args, thread, n_threads):
        a = arguments(args)
        pairs = load_i64(a.tokens) * a.top_k
        if thread != 0:
            return
        for e in range(a.experts):
            store_i64(a.cursors + 8 * e, 0)
        for i in range(pairs):
            at = a.cursors + 8 * load_i64(a.chosen + 8 * i)
            store_i64(at, load_i64(at) + 1)
        found, slot = 0, 0
        for e in range(a.experts):
            n = load_i64(a.cursors + 8 * e)
            store_i64(a.cursors + 8 * e, slot)
            if n != 0:
                entry = a.segments + 8 + found * SEGMENT
                store_i64(entry, e)
                store_i64(entry + 8, slot)
                store_i64(entry + 16, n)
                found += 1
                slot += (n + 15) // 16 * 16
        store_i64(a.segments, found)
        for i in range(pairs):
            at = a.cursors + 8 * load_i64(a.chosen + 8 * i)
            slot = load_i64(at)
            store_i64(at, slot + 1)
            store_i64(a.slots + 8 * i, slot)
            store_i64(a.sources + 8 * slot, i)

    return group


def reference(
    logits: np.ndarray,
    top_k: int,
    normalized: bool,
    factor: float = 1.0,
    bias: np.ndarray | None = None,
    *,
    sigmoid: bool = False,
    least: float = 0.0,
    groups: int = 1,
    top_groups: int = 1,
    scales: np.ndarray | None = None,
    spread: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The NumPy twin of `choose`: [tokens, experts] f32 -> experts int64 [tokens, top_k], weights f32."""
    wide = logits.astype(np.float64)
    if sigmoid:
        weights = scores = 1.0 / (1.0 + np.exp(-wide))
    else:
        weights = np.exp(wide - wide.max(axis=1, keepdims=True))
        scores = weights / weights.sum(axis=1, keepdims=True)
    favoured = scores if bias is None else scores + bias
    merits = logits if bias is None else favoured
    if groups != top_groups:
        tokens, experts = logits.shape
        best = np.sort(favoured.reshape(tokens, groups, -1), axis=2)[:, :, -2:].sum(axis=2)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :top_groups]
        mask = np.zeros((tokens, groups), bool)
        np.put_along_axis(mask, kept, True, axis=1)
        merits = np.where(mask.repeat(experts // groups, axis=1), merits, -np.inf)
    chosen = np.argsort(-merits, axis=1, kind="stable")[:, :top_k]
    of_chosen = np.take_along_axis(weights, chosen, axis=1)
    if spread:
        found = np.empty(chosen.shape)
        for k in range(top_k):
            best = np.take_along_axis(wide, chosen[:, k : k + 1], axis=1)
            near = best - wide <= spread * np.maximum(np.abs(wide), best)
            np.put_along_axis(near, chosen[:, :k], False, axis=1)
            found[:, k] = 1.0 / (np.exp(wide - best) * near).sum(axis=1)
        return chosen, (found * factor).astype(np.float32)
    whole = of_chosen if normalized else np.ones((len(logits), 1)) if sigmoid else weights
    result = of_chosen / (whole.sum(axis=1, keepdims=True) + (least if normalized else 0.0)) * factor
    return chosen, (result if scales is None else result * scales[chosen]).astype(np.float32)
