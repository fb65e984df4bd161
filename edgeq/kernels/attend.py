"""Grouped-query attention over the KV cache, flash-style (arXiv:2205.14135): one pass over blocks of positions.

A pass has runs of rows, each of one sequence, which are computed one after the other, without a barrier. The query
heads that share a key/value head, of one token (decode) or of several (prefill), are the rows of an item: every key
and value that is read serves all of them, in register tiles of `width` rows (see attention_block.py).

A block of positions gives each row a partial result: the largest score m, the sum l of 2**(score - m), and the values
so weighted. Partial results of a row are merged in the order of positions, whoever computed them: blocks begin at
multiples of BLOCK, so results depend neither on threads, nor on how a prompt was split, nor on what else there is in
the pass. A single token's blocks may be shared by threads: a thread's are neighbours then, and the last to finish
merges. Where there are many runs each does all blocks of a head, as there is enough for every thread.

A block is a page: the table of the sequence says where it lies (see graph/pages.py). A page may hold anything around
the positions that a row sees: their scores are replaced, and their values are not read.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeq.kernels.attention_block import (
    LOG2_E,
    LOWEST,
    SCORES_ROW,
    add_by_distance,
    cap_scores,
    lower_by_distance,
    make_pieces,
    softmax,
)
from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
from edgeq.kernels.layout import (
    ATTENTION_ROWS,
    KV_BYTES,
    RUN_FIRST,
    RUN_PART,
    RUN_POSITION,
    RUN_ROWS,
    RUN_WORDS,
    attention_places,
)
from edgeq.kernels.pack_rows import make_keep
from edgeq.kernels.turns import NOBODY, crew_of, for_part, next_owner, take
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

RUN = 8 * RUN_WORDS

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
        totals, tops, rows, group, columns, value_dim, out, stride, words, sums, token, head, groups, count, sinks
    ):
        """Totals over sums as rows of `out`, and quantized where a quantized matrix follows."""
        for r in range(rows):
            here = r // group
            first = (head + r - here * group) * value_dim
            inverse = splat_f32(np.float32(1.0) / load_f32(tops + 8 * r + 4))
            if sinks != 0:
                inverse = _with_sink(tops + 8 * r, load_f32(sinks + 4 * (head + r - here * group)) * LOG2_E)
            target = out + (token + here) * stride + first * 4 if out != 0 else 0
            at = totals + r // width * columns * width * 64 + r % width * 64
            if value_dim % 32 == 0:
                for c in range(0, columns, 2):
                    low = mul(load_f32x16(at + c * width * 64), inverse)
                    high = mul(load_f32x16(at + (c + 1) * width * 64), inverse)
                    place = (first + c * 16) // 32
                    keep(low, high, target + c * 64 if out != 0 else 0, words, sums, token + here, place, groups, count)
            else:
                for c in range(columns):
                    store_f32x16(at, mul(load_f32x16(at + c * width * 64), inverse))
                    for d in range(min(16, value_dim - c * 16)):
                        store_f32(target + c * 64 + 4 * d, load_f32(at + 4 * d))

    return finish


@functools.cache  # a prompt's serves several variants, of which a process that compiles them types it once
def make_attend(isa: Isa, width: int, kind: str, arguments: Callable[[int], Any], latent: bool = False):
    """`attend(args, number, thread, n_threads)`, run `number` of the pass in register tiles of `width` rows, over a
    cache of elements `kind`; `latent`: of keys that begin with their values.

    `arguments` loads the argument block of ops/attention.py.
    """
    element, quantized = KV_BYTES[kind], kind == "q8_0"
    pieces = make_pieces(isa, width, kind)
    pack, scores_of, weighted_values, merge = pieces.pack, pieces.scores_of, pieces.weighted_values, pieces.merge
    weighted_latents = pieces.weighted_latents
    finish = _make_finish(isa, width)

    @device
    def seen(args, run, position):
        """The first position that a token at `position` does not see: the next one; what its row says, which is no
        less than the one before says; or, where tokens see what follows too, the end of that: of the window, which is
        as long on either side, or of the run."""
        a = arguments(args)
        if a.reach != 0:
            row = load_i64(run + 8 * RUN_FIRST) + position - load_i64(run + 8 * RUN_POSITION)
            return load_i64(a.reach + 8 * row)
        if a.sees_all == 0:
            return position + 1
        end = load_i64(run + 8 * RUN_ROWS) + load_i64(run + 8 * RUN_POSITION)
        return min(end, position + a.window) if a.window != 0 else end

    @device
    def first_seen(args, position):
        """The first position that a token at `position` sees: in its window, or in its chunk."""
        a = arguments(args)
        if a.window == 0:
            return 0
        return position // a.window * a.window if a.chunked != 0 else max(0, position + 1 - a.window)

    @device
    def first_block(args, position):
        """The first position of the first block that a token at `position` sees."""
        return first_seen(args, position) // BLOCK * BLOCK

    @device
    def block_of(args, run, table, queries, kv_head, position, rows, group, base, scores, wide, sums, peaks):
        """Partial results over the positions of the block at `base`, for rows whose first token is at `position`."""
        a = arguments(args)
        head_dim, places = a.head_dim, a.places
        cap = bits_f32(a.softcap)
        columns = (a.value_dim + 15) // 16
        tiles = (rows + width - 1) // width
        end = min(BLOCK, seen(args, run, position + (rows - 1) // group) - base)
        begin = max(0, first_seen(args, position) - base)
        scale_bytes = (head_dim + 31) // 32 * 2 if quantized else 0
        position_bytes = head_dim * element + scale_bytes
        page = load_i64(table + base // BLOCK * 8)
        keys = page + a.keys + kv_head * places * position_bytes
        values = page + a.values + kv_head * places * (columns * 16 * element + scale_bytes)
        scores_of(queries, tiles, keys, position_bytes, head_dim, begin, end, scores, wide)
        if a.of_query != 0:
            add_by_content(args, run, kv_head, position, rows, base, begin, end, scores)
        for r in range(rows):
            high = min(BLOCK, seen(args, run, position + r // group) - base)
            low = max(0, first_seen(args, position + r // group) - base)
            if low < high:
                if cap != np.float32(0.0):
                    cap_scores(scores + r * SCORES_ROW, begin, end, cap * LOG2_E)
                if a.slopes != 0:
                    slope = load_f32(a.slopes + 4 * (kv_head * group + r % group)) * LOG2_E
                    lower_by_distance(scores + r * SCORES_ROW, begin, end, slope, position + r // group - base)
                if a.distances != 0:
                    row = a.distances + (kv_head * group + r % group) * a.distances_stride
                    add_by_distance(scores + r * SCORES_ROW, begin, end, row + 4 * (base - position - r // group))
                softmax(scores + r * SCORES_ROW, begin, end, low, high, peaks + 8 * r)
            else:
                store_f32(peaks + 8 * r + 4, np.float32(0.0))
        if latent:
            weighted_latents(scores, tiles, keys, position_bytes, head_dim, columns, begin, end, sums, wide)
        else:
            scales = values + places * columns * 16 * element
            weighted_values(scores, tiles, values, scales, places, columns, begin, end, sums, wide)

    @device
    def add_by_content(args, run, kv_head, position, rows, base, begin, end, scores):
        """Add to scores of rows, one for each token from the one at `position` on, what their queries have for where
        the keys at [begin, end) of the block are, and these for where they are. A key's values for one token after the
        other lie side by side."""
        a = arguments(args)
        scale, at = bits_f32(a.scale) * LOG2_E, load_i64(run + 8 * RUN_FIRST) - load_i64(run + 8 * RUN_POSITION)
        head = kv_head * a.relative
        of_query = a.of_query + head + (at + position) * a.of_query_stride
        for j in range(begin, end):
            of_key = a.of_key + head + (at + base + j) * a.of_key_stride
            place = a.relative_places + 8 * (base + j - position)
            for r in range(rows):
                score, where = scores + r * SCORES_ROW + 4 * j, load_i64(place - 8 * r)
                both = load_f32(of_query + r * a.of_query_stride + where) + load_f32(of_key + where)
                store_f32(score, load_f32(score) + both * scale)

    @device
    def finish_rows(args, totals, tops, kv_head, token, rows, group):
        a = arguments(args)
        finish(
            totals,
            tops,
            rows,
            group,
            (a.value_dim + 15) // 16,
            a.value_dim,
            a.out,
            a.out_stride,
            a.words,
            a.sums,
            token,
            kv_head * group,
            a.heads * a.value_dim // 32,
            load_i64(a.tokens),
            a.sinks,
        )

    @device
    def item(args, run, scratch, kv_head, token, tokens, base, blocks, packed):
        """Rows of `tokens` tokens of one key/value head, from the run's `token` on, over the blocks from `base` on: all
        of them, or, of a single token, one of `blocks` that several threads share. `packed`: these queries are in the
        scratch already."""
        a = arguments(args)
        head_dim = a.head_dim
        group = a.heads // a.kv_heads
        rows = tokens * group
        columns = (a.value_dim + 15) // 16
        padded = (rows + width - 1) // width * width
        queries, scores, wide, sums, peaks, totals, tops, _ = _places(scratch, padded, head_dim)
        first, place = load_i64(run + 8 * RUN_FIRST), load_i64(run + 8 * RUN_PART)
        q = a.q + (first + token) * a.q_stride + kv_head * group * head_dim * 4
        if not packed:
            pack(q, a.q_stride, head_dim, rows, group, bits_f32(a.scale) * LOG2_E, queries)
            _clear(totals, padded * columns * 64, tops, padded)
        table = load_i64(a.pages + 8 * first)
        position = load_i64(run + 8 * RUN_POSITION) + token
        end = seen(args, run, position + tokens - 1)
        part_bytes = padded * columns * 64 + padded * 8
        counter = a.part_counters + 8 * (place * a.kv_heads + kv_head)
        first_part = a.partials + place * a.partials_bytes + kv_head * blocks * part_bytes
        if place >= 0:
            sums = first_part + (base - first_block(args, position)) // BLOCK * part_bytes
            peaks = sums + padded * columns * 64
            end = min(end, base + BLOCK)
        for at in range(base, end, BLOCK):
            block_of(args, run, table, queries, kv_head, position, rows, group, at, scores, wide, sums, peaks)
            parts = 1
            if place >= 0:
                if atomic_add(counter, 1) != blocks - 1:
                    return
                atomic_exchange(counter, 0)
                parts, sums, peaks = blocks, first_part, first_part + padded * columns * 64
            for part in range(parts):
                merge(sums + part * part_bytes, peaks + part * part_bytes, rows, columns, totals, tops)
        finish_rows(args, totals, tops, kv_head, first + token, rows, group)

    @device
    def attend(args, number, thread, n_threads):
        a = arguments(args)
        heads, kv_heads, run = a.heads, a.kv_heads, a.runs + number * RUN
        scratch = a.scratch + thread * a.scratch_bytes
        count, position = load_i64(run + 8 * RUN_ROWS), load_i64(run + 8 * RUN_POSITION)
        shared = load_i64(run + 8 * RUN_PART) >= 0
        # as many tokens in an item as fill its rows, but enough items for every thread
        tokens = max(1, min(ATTENTION_ROWS // (heads // kv_heads), count * kv_heads // n_threads))
        blocks = (position - first_block(args, position)) // BLOCK + 1 if shared else 1
        items = (count + tokens - 1) // tokens * kv_heads * blocks
        crew = for_part(crew_of(a.counters, a.barriers, thread, n_threads), number)
        whose, i, before = thread, -1, -1
        while whose != NOBODY:
            first_item, step, turns = whose, n_threads, (items - whose + n_threads - 1) // n_threads
            if shared:
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
            item(args, run, scratch, kv_head, first, min(tokens, count - first), base, blocks, packed)
            before = at

    return attend
