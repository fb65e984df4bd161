"""Grouped-query attention over the KV cache, flash-style (arXiv:2205.14135): one pass over blocks of positions.

The query heads that share a key/value head, of one token (decode) or of several (prefill), are the rows of an item:
every key and value that is read serves all of them, in register tiles of `width` rows (see attention_block.py).

A block of positions gives each row a partial result: the largest score m, the sum l of 2**(score - m), and the values
so weighted. Partial results of a row are merged in the order of positions, whoever computed them: blocks begin at
multiples of BLOCK, so results depend neither on threads nor on how a prompt was split. A thread's share of a single
token are neighbouring blocks: it then asks ahead for what it will read itself. The last to finish merges.

A layer with a window keeps only its latest positions, position p in place p % ring (see graph/kv_cache.py). A ring
shorter than the context is a multiple of BLOCK, so a block lies there in one piece. Places around the positions that
a row sees may hold older or newer ones: their scores are replaced, and their values are not read.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.kernels.attention_block import LOG2_E, LOWEST, SCORES_ROW, cap_scores, make_pieces, softmax
from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
from edgeq.kernels.layout import ATTENTION_ROWS, KV_BYTES, attention_places
from edgeq.kernels.pack_rows import make_keep
from edgeq.kernels.turns import NOBODY, crew_of, next_owner, take
from edgeq.simd.exp import exp2_of_nonpositive
from edgeq.simd.isa import Isa
from edgeq.simd.memory import bits_f32, load_f32, load_i64, store_f32
from edgeq.simd.threads import atomic_add, atomic_exchange
from edgeq.simd.vector import (
    device,
    div,
    fma,
    load_f32x16,
    mul,
    splat_f32,
    store_f32x16,
    sub,
    zero_f32x16,
)

_places = device(attention_places)


@device
def _clear(totals, nbytes, tops, rows):
    """No position seen yet."""
    for i in range(0, nbytes, 64):
        store_f32x16(totals + i, zero_f32x16())
    for r in range(rows):
        store_f32(tops + 8 * r, LOWEST)
        store_f32(tops + 8 * r + 4, np.float32(0.0))


@device
def _with_sink(top, sink):
    """1 over the sum of a row (its largest score and sum are at `top`) with one more score, which has no value."""
    before = load_f32(top)
    largest = before if before > sink else sink
    old = exp2_of_nonpositive(sub(splat_f32(before), splat_f32(largest)))
    new = exp2_of_nonpositive(sub(splat_f32(sink), splat_f32(largest)))
    return div(old, fma(splat_f32(load_f32(top + 4)), old, new))


def _make_finish(isa: Isa, width: int):
    keep = make_keep(isa.tile)

    @device
    def finish(
        totals, tops, rows, group, columns, head_dim, out, stride, words, sums, token, head, groups, count, sinks
    ):
        """Totals over sums as rows of `out`, and quantized where a quantized matrix follows."""
        for r in range(rows):
            here = r // group
            first = (head + r - here * group) * head_dim
            inverse = splat_f32(np.float32(1.0) / load_f32(tops + 8 * r + 4))
            if sinks != 0:
                inverse = _with_sink(tops + 8 * r, load_f32(sinks + 4 * (head + r - here * group)) * LOG2_E)
            target = out + (token + here) * stride + first * 4 if out != 0 else 0
            at = totals + r // width * columns * width * 64 + r % width * 64
            if head_dim % 32 == 0:
                for c in range(0, columns, 2):
                    low = mul(load_f32x16(at + c * width * 64), inverse)
                    high = mul(load_f32x16(at + (c + 1) * width * 64), inverse)
                    place = (first + c * 16) // 32
                    keep(low, high, target + c * 64 if out != 0 else 0, words, sums, token + here, place, groups, count)
            else:
                for c in range(columns):
                    store_f32x16(at, mul(load_f32x16(at + c * width * 64), inverse))
                    for d in range(min(16, head_dim - c * 16)):
                        store_f32(target + c * 64 + 4 * d, load_f32(at + 4 * d))

    return finish


@functools.cache  # a prompt's serves several variants, of which a process that compiles them types it once
def make_attend(isa: Isa, width: int, kind: str, arguments: Callable[[int], Any]):
    """`attend(args, thread, n_threads)` in register tiles of `width` rows, over a cache of elements `kind`.

    `arguments` loads the argument block of ops/attention.py.
    """
    element, quantized = KV_BYTES[kind], kind == "q8_0"
    pieces = make_pieces(isa, width, kind)
    pack, scores_of, weighted_values, merge = pieces.pack, pieces.scores_of, pieces.weighted_values, pieces.merge
    finish = _make_finish(isa, width)

    @device
    def seen(args, position):
        """The first position that a token at `position` does not see: the next one, or, where all see all, the end."""
        a = arguments(args)
        return position + 1 if a.sees_all == 0 else load_i64(a.tokens) + load_i64(a.start)

    @device
    def first_block(args, position):
        """The first position of the first block that a token at `position` sees."""
        a = arguments(args)
        return max(0, position + 1 - a.window) // BLOCK * BLOCK if a.window != 0 else 0

    @device
    def block_of(args, queries, kv_head, position, rows, group, base, scores, wide, sums, peaks):
        """Partial results over the positions of the block at `base`, for rows whose first token is at `position`."""
        a = arguments(args)
        head_dim, ring, window = a.head_dim, a.ring, a.window
        cap = bits_f32(a.softcap)
        columns = (head_dim + 15) // 16
        tiles = (rows + width - 1) // width
        end = min(BLOCK, seen(args, position + (rows - 1) // group) - base)
        begin = max(0, position + 1 - window - base) if window != 0 else 0
        scale_bytes = (head_dim + 31) // 32 * 2 if quantized else 0
        position_bytes = head_dim * element + scale_bytes
        place = base % ring
        keys = a.keys + (kv_head * ring + place) * position_bytes
        values = a.values + kv_head * ring * (columns * 16 * element + scale_bytes)
        scales = values + ring * columns * 16 * element + 2 * place
        values += place * 16 * element
        scores_of(queries, tiles, keys, position_bytes, head_dim, begin, end, scores, wide)
        for r in range(rows):
            high = min(BLOCK, seen(args, position + r // group) - base)
            low = max(0, position + r // group + 1 - window - base) if window != 0 else 0
            if low < high:
                if cap != np.float32(0.0):
                    cap_scores(scores + r * SCORES_ROW, begin, end, cap * LOG2_E)
                softmax(scores + r * SCORES_ROW, begin, end, low, high, peaks + 8 * r)
            else:
                store_f32(peaks + 8 * r + 4, np.float32(0.0))
        weighted_values(scores, tiles, values, scales, ring, columns, begin, end, sums, wide)

    @device
    def finish_rows(args, totals, tops, kv_head, token, rows, group, count):
        a = arguments(args)
        finish(
            totals,
            tops,
            rows,
            group,
            (a.head_dim + 15) // 16,
            a.head_dim,
            a.out,
            a.out_stride,
            a.words,
            a.sums,
            token,
            kv_head * group,
            a.heads * a.head_dim // 32,
            count,
            a.sinks,
        )

    @device
    def item(args, scratch, kv_head, token, tokens, count, base, blocks, packed):
        """Rows of `tokens` tokens of one key/value head, over the blocks from `base` on: all of them, or, of a single
        token, one of `blocks` that several threads may share. `packed`: these queries are in the scratch already."""
        a = arguments(args)
        head_dim = a.head_dim
        group = a.heads // a.kv_heads
        rows = tokens * group
        columns = (head_dim + 15) // 16
        padded = (rows + width - 1) // width * width
        queries, scores, wide, sums, peaks, totals, tops, _ = _places(scratch, padded, head_dim)
        q = a.q + token * a.q_stride + kv_head * group * head_dim * 4
        if not packed:
            pack(q, a.q_stride, head_dim, rows, group, bits_f32(a.scale) * LOG2_E, queries)
            _clear(totals, padded * columns * 64, tops, padded)
        position = load_i64(a.start) + token
        end = seen(args, position + tokens - 1)
        part_bytes = padded * columns * 64 + padded * 8
        partials, counter = a.partials, a.part_counters + 8 * kv_head
        first_part = partials + kv_head * blocks * part_bytes
        if count == 1:
            sums = first_part + (base - first_block(args, position)) // BLOCK * part_bytes
            peaks = sums + padded * columns * 64
            end = min(end, base + BLOCK)
        for at in range(base, end, BLOCK):
            block_of(args, queries, kv_head, position, rows, group, at, scores, wide, sums, peaks)
            parts = 1
            if count == 1:
                if atomic_add(counter, 1) != blocks - 1:
                    return
                atomic_exchange(counter, 0)
                parts, sums, peaks = blocks, first_part, first_part + padded * columns * 64
            for part in range(parts):
                merge(sums + part * part_bytes, peaks + part * part_bytes, rows, columns, totals, tops)
        finish_rows(args, totals, tops, kv_head, token, rows, group, count)

    @device
    def attend(args, thread, n_threads):
        a = arguments(args)
        heads, kv_heads = a.heads, a.kv_heads
        scratch = a.scratch + thread * a.scratch_bytes
        count, position = load_i64(a.tokens), load_i64(a.start)
        # as many tokens in an item as fill its rows, but enough items for every thread
        tokens = max(1, min(ATTENTION_ROWS // (heads // kv_heads), count * kv_heads // n_threads))
        blocks = (position - first_block(args, position)) // BLOCK + 1 if count == 1 else 1
        items = (count + tokens - 1) // tokens * kv_heads * blocks
        crew = crew_of(a.counters, a.barriers, thread, n_threads)
        whose, i, before = thread, -1, -1
        while whose != NOBODY:
            first_item, step, turns = whose, n_threads, (items - whose + n_threads - 1) // n_threads
            if count == 1:
                first_item, step = items * whose // n_threads, 1
                turns = items * (whose + 1) // n_threads - first_item
            i = take(crew, whose, i, turns)
            if i == turns:
                whose, i = next_owner(crew, whose), -1
                continue
            at = first_item + i * step  # later tokens see more positions: each thread has some of them
            kv_head = at // blocks % kv_heads
            first = at // (blocks * kv_heads) * tokens
            base = first_block(args, position + first) + at % blocks * BLOCK
            packed = at == before + 1 and at % blocks > 0
            item(args, scratch, kv_head, first, min(tokens, count - first), count, base, blocks, packed)
            before = at

    return attend
