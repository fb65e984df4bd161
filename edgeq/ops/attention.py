"""Grouped-query attention over the layer's KV cache; its kernel is kernels/attend.py."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits, round_up
from edgeq.graph.heads import Heads
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.pages import KeysAndValues
from edgeq.graph.row_tables import RUNS, TOKENS
from edgeq.graph.value import Value
from edgeq.kernels.layout import (
    ATTENTION_BLOCK,
    ATTENTION_ROWS,
    GROUP,
    KV_BYTES,
    SPLIT_RUNS,
    attention_places,
    heads_per_tile,
)
from edgeq.ops.distances import by_distance
from edgeq.ops.relative_positions import RelativeScores

RELATIVE = ("of_query", "of_query_stride", "of_key", "of_key_stride", "relative", "relative_places")
LATENT = "latent"  # in place of rows per tile: keys begin with their values


class Args(NamedTuple):
    q: int
    q_stride: int  # bytes
    out: int  # or 0
    out_stride: int  # bytes
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    keys: int  # where they begin in a page
    values: int
    places: int  # of a page
    pages: int  # of each row's sequence: addresses of tables
    scale: int  # f32 bits
    window: int  # positions, or 0
    scratch: int  # of every thread, see layout.attention_places
    scratch_bytes: int  # of a thread
    tokens: int  # how many rows, at this address
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address
    words: int  # or 0
    sums: int
    partials: int  # results of blocks of a single token, of SPLIT_RUNS runs
    partials_bytes: int  # of a run
    part_counters: int  # int64 of each run's kv heads, zero in between
    softcap: int  # of the scores, f32 bits, or 0
    sinks: int  # f32 [heads], or 0
    slopes: int  # f32 [heads], or 0
    distances: int  # f32 of each distance of the first head, at that of none, or 0; see ops/distances.py
    distances_stride: int  # bytes from a head's to the next one's
    of_query: int  # f32 of each relative position of the first head, or 0; see ops/relative_positions.py
    of_query_stride: int  # bytes from a row's to the next one's
    of_key: int
    of_key_stride: int
    relative: int  # bytes from a head's to the next one's, of both
    relative_places: int  # int64 bytes into a head's, of each distance, at that of none
    sees_all: int  # 1 if tokens also see those after them (in the same run)
    reach: int  # int64 of each row, the position behind the last that it sees, or 0: all before and its own
    chunked: int  # 1 if the window is the token's chunk of so many positions
    counters: int = 0  # of turns, see kernels/turns.py
    barriers: int = 0


@dataclass(frozen=True)
class _Memory:
    """Of the kernel: scratch of so many bytes per thread, partial results of so many per run, counters."""

    scratch: np.ndarray
    per_thread: int
    partials: np.ndarray
    per_run: int
    counters: np.ndarray


@dataclass(frozen=True)
class Attention(Op):
    """softmax(scale q k^T) v over the layer's KV cache, where q's own keys and values are already. `relative` is added
    to q k^T; all that a token sees must be in its pass then, and no heads may share keys."""

    q: Value
    heads: Heads
    layer: int
    relative: RelativeScores | None = None
    kernels: ClassVar[Variants] = {
        "attention": lambda isa: [f"{heads}-{kv}" for heads in [*range(1, isa.tile + 1), LATENT] for kv in KV_BYTES]
    }

    @property
    def packs(self) -> bool:
        return self.heads.value_dim % GROUP == 0

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.q, self.relative.of_query, self.relative.of_key) if self.relative else (self.q,)

    def shape(self, shapes: object) -> tuple[int, bool]:
        return self.heads.num_attention_heads * self.heads.value_dim, False

    def lower(self, low: Lowering, out: Value) -> None:
        q, y, heads = low.buffer(self.q), low.buffer(out), self.heads
        kept, memory = low.kept(self.layer), self._memory(low)
        assert isinstance(kept, KeysAndValues)
        middle, stride = self._distances(low)
        args = Args(
            q=q.address,
            q_stride=q.stride,
            out=y.address,
            out_stride=y.stride,
            heads=heads.num_attention_heads,
            kv_heads=heads.num_key_value_heads,
            head_dim=heads.head_dim,
            value_dim=heads.value_dim,
            keys=kept.offset,
            values=kept.offset + kept.key_bytes,
            places=low.places,
            pages=low.pages(kept),
            scale=bits(heads.scale or 1.0 / math.sqrt(heads.head_dim)),
            window=heads.sliding_window or 0,
            scratch=int(memory.scratch.ctypes.data),
            scratch_bytes=memory.per_thread,
            tokens=low.tables.count(TOKENS),
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
            words=y.words_at if self.packs else 0,
            sums=y.sums_at if self.packs else 0,
            partials=int(memory.partials.ctypes.data),
            partials_bytes=memory.per_run,
            part_counters=int(memory.counters.ctypes.data),
            softcap=bits(heads.softcap),
            sinks=low.vector(heads.sinks),
            slopes=self._slopes(low),
            distances=middle,
            distances_stride=stride,
            **self._relative(low),
            sees_all=int(not heads.causal),
            reach=int(low.tables.with_reach().ctypes.data) if heads.whole_images else 0,
            chunked=int(heads.chunked),
        )
        read = [low.buffer(value) for value in self.reads]
        low.tape.add(f"attention:{LATENT if heads.latent else self._tile(low)}-{low.kv}", args, [*read, kept], [y])

    def _tile(self, low: Lowering) -> int:
        if self.heads.latent:
            return low.tile
        return heads_per_tile(self.heads.num_attention_heads, self.heads.num_key_value_heads, low.tile)

    def _slopes(self, low: Lowering) -> int:
        """Address of those of all heads; 0 for none."""
        if not self.heads.slopes:
            return 0
        values = np.array(self.heads.slopes, np.float32)
        low.keep.append(values)
        return int(values.ctypes.data)

    def _distances(self, low: Lowering) -> tuple[int, int]:
        """The address of what is added for no distance, and how far the heads' are apart; 0 where nothing is."""
        if not self.heads.distances:
            return 0, 0
        values = low.file.data(self.heads.distances).view(np.float32)
        table = by_distance(values, self.heads.num_attention_heads, low.context) * np.float32(math.log2(math.e))
        low.keep.append(table)
        return int(table.ctypes.data) + table.strides[0] // 2, table.strides[0]

    def _relative(self, low: Lowering) -> dict[str, int]:
        """The words that say what is added by relative position; 0 where nothing is."""
        given = self.relative
        if given is None:
            return dict.fromkeys(RELATIVE, 0)
        assert self.heads.num_attention_heads == self.heads.num_key_value_heads and not self.heads.causal
        of_query, of_key, where = low.buffer(given.of_query), low.buffer(given.of_key), 4 * given.places(low.context)
        low.keep.append(where)
        each = 4 * given.of_query.width // self.heads.num_attention_heads
        middle = int(where.ctypes.data) + where.nbytes // 2
        words = (of_query.address, of_query.stride, of_key.address, of_key.stride, each, middle)
        return dict(zip(RELATIVE, words, strict=True))

    def _memory(self, low: Lowering) -> _Memory:
        """Layers with the same heads run in turn and share it."""
        heads = replace(self.heads, sinks="", distances="")
        memory = low.shared.get(heads)
        if memory is None:
            group = heads.num_attention_heads // heads.num_key_value_heads
            per_thread = attention_places(0, round_up(max(ATTENTION_ROWS, group), low.tile), heads.head_dim)[-1]
            rows = round_up(group, self._tile(low))
            blocks = heads.num_key_value_heads * -(-low.context // ATTENTION_BLOCK)
            per_run = blocks * rows * 4 * (round_up(heads.head_dim, 16) + 2)
            memory = low.shared[heads] = _Memory(
                low.scratch.new(low.threads * per_thread),
                per_thread,
                low.scratch.new(SPLIT_RUNS * per_run),
                per_run,
                low.scratch.new(SPLIT_RUNS * heads.num_key_value_heads * 8),
            )
        assert isinstance(memory, _Memory)
        return memory


def make(variant, isa):
    """`variant` is e.g. `4-f16`: rows per tile for a single token, and the cache's element (f16, f32, q8_0);
    `latent-f16` has as many rows per tile as there can be, and its values are what keys begin with."""
    from edgeq.kernels.attend import RUN, make_attend
    from edgeq.kernels.layout import RUN_ROWS
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64

    width_text, kind = variant.split("-")
    arguments = words_of(Args)
    latent = width_text == LATENT
    width = isa.tile if latent else int(width_text)
    decode = make_attend(isa, width, kind, arguments, latent)
    prefill = decode if width == isa.tile else make_attend(isa, isa.tile, kind, arguments)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        for number in range(load_i64(a.run_count)):
            if load_i64(a.runs + number * RUN + 8 * RUN_ROWS) == 1:
                decode(args, number, thread, n_threads)
            else:
                prefill(args, number, thread, n_threads)

    def one_kernel(args, thread, n_threads):
        for number in range(load_i64(arguments(args).run_count)):
            decode(args, number, thread, n_threads)

    return one_kernel if decode is prefill else kernel


def reference(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    start: int,
    window: int = 0,
    cap: float = 0.0,
    sinks: np.ndarray | None = None,
    causal: bool = True,
    slopes: np.ndarray | None = None,
    distances: np.ndarray | None = None,
    relative: np.ndarray | None = None,
    reach: np.ndarray | None = None,
    chunked: bool = False,
) -> np.ndarray:
    """The NumPy twin: q [tokens, heads, head_dim], k [positions, kv heads, head_dim], v [positions, kv heads,
    value_dim] -> [tokens, heads, value_dim].

    Token t stands at position start + t and sees positions up to its own, the last `window` of them if not 0; unless
    `causal` it also sees those after it, as many as before it. If `cap` is not 0, scores are capped to within it.
    `sinks` [heads] are one more score per head, without a value; `slopes` [heads] are what each position between takes
    off a score; `distances` [heads, 2 n] are added to scores by the distance, that of none in the middle;
    `relative` [heads, tokens, positions] is added to q k^T; `reach` [tokens] are the positions behind the last that
    each sees, in place of its own; `chunked`: of `window` positions each token sees those of its own chunk.
    """
    tokens, heads, head_dim = q.shape
    group = heads // k.shape[1]
    result = np.zeros((tokens, heads, v.shape[2]), q.dtype)
    for t in range(tokens):
        first = max(0, start + t + 1 - window) if window else 0
        first = (start + t) // window * window if chunked else first
        last = start + t + 1 if causal else min(len(k), start + t + window) if window else len(k)
        last = last if reach is None else int(reach[t])
        for h in range(heads):
            keys, values = k[first:last, h // group].astype(np.float64), v[first:last, h // group].astype(np.float64)
            scores = keys @ q[t, h].astype(np.float64)
            scores = (scores if relative is None else scores + relative[h, t, first:last]) / np.sqrt(head_dim)
            if cap:
                scores = cap * np.tanh(scores / cap)
            if slopes is not None:
                scores = scores - float(slopes[h]) * np.abs(np.arange(first, last) - (start + t))
            if distances is not None:
                apart = np.arange(first, last) - (start + t)
                scores = scores + distances[h, distances.shape[1] // 2 + apart]
            weights = np.exp(scores - scores.max())
            beside = np.exp(float(sinks[h]) - scores.max()) if sinks is not None else 0.0
            result[t, h] = weights @ values / (weights.sum() + beside)
    return result
