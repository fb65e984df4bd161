"""Rotary position embedding, and the KV cache's newest entries: rotates q in place, and writes rotated k and v into the
sequence's page (see kernels/cache_rows.py)."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.heads import Heads
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.pages import Kept, KeysAndValues
from edgeq.graph.row_tables import TOKENS
from edgeq.graph.value import Value
from edgeq.kernels.layout import KV_BYTES


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of the first `2 * len(inverse_frequencies)` values of each head; none if that is 0.

    `interleaved` rotates neighbours (2i, 2i + 1), otherwise the halves (i, i + n / 2). `attention_factor` scales
    cos and sin. In a session for more than `short_context` positions the frequencies are `long_frequencies` if there
    are such (longrope), or those of a theta that grows with the session (dynamic): see `for_context`. Queries at
    position p are multiplied by 1 + query_growth * log(1 + floor((p + query_first) / query_span)), where all of a head
    is rotated.
    """

    inverse_frequencies: tuple[float, ...]
    interleaved: bool = False
    attention_factor: float = 1.0
    short_context: int = 0
    long_frequencies: tuple[float, ...] = ()
    dynamic_factor: float = 0.0
    query_growth: float = 0.0
    query_span: int = 0
    query_first: int = 0

    def for_context(self, positions: int) -> "Rope":
        """The embedding in a session for so many positions."""
        frequencies, half = self.inverse_frequencies, len(self.inverse_frequencies)
        if positions > self.short_context:
            if self.long_frequencies:
                frequencies = self.long_frequencies
            elif self.dynamic_factor and half > 1:
                # theta' = theta * growth^(2 half / (2 half - 2)), so frequency i shrinks by growth^(-i / (half - 1))
                growth = self.dynamic_factor * positions / self.short_context - (self.dynamic_factor - 1.0)
                frequencies = tuple(f * growth ** (-i / (half - 1)) for i, f in enumerate(frequencies))
        return replace(self, inverse_frequencies=frequencies, short_context=0, long_frequencies=(), dynamic_factor=0.0)


NO_ROPE = Rope(())


def rope_tables(inverse_frequencies: tuple[float, ...], positions: int, factor: float = 1.0) -> np.ndarray:
    """cos and sin of every position: f32 [positions, 2, half].

    Angles are f32 products, as in the training code whose weights are run.
    """
    frequencies = np.asarray(inverse_frequencies, dtype=np.float64).astype(np.float32)
    result = np.empty((positions, 2, frequencies.size), dtype=np.float32)
    for first in range(0, positions, 4096):  # in slices, so that the f64 values in between stay small
        here = np.arange(first, min(first + 4096, positions), dtype=np.float32)
        angles = (here[:, None] * frequencies[None, :]).astype(np.float64)
        result[first : first + 4096, 0] = np.cos(angles) * factor
        result[first : first + 4096, 1] = np.sin(angles) * factor
    return result


def query_tables(tables: np.ndarray, growth: float, span: int, first: int = 0) -> np.ndarray:
    """Of `rope_tables`, those of queries."""
    spans = (np.arange(len(tables)) + first) // span
    return tables * (1.0 + growth * np.log(1.0 + spans)).astype(np.float32)[:, None, None]


class Args(NamedTuple):
    q: int
    q_stride: int  # bytes
    k: int
    v: int
    kv_stride: int  # of k and v, in bytes
    heads: int
    kv_heads: int
    head_dim: int
    tables: int  # f32 cos[half], sin[half] of every position
    query_tables: int  # those of queries
    half: int
    interleaved: int  # 0 or 1
    keys: int  # where they begin in a page
    values: int
    places: int  # of a page
    pages: int  # of each row's sequence: addresses of tables
    positions: int  # of rows
    tokens: int  # how many rows, at this address


@dataclass(frozen=True)
class Rotate(Op):
    """Rotate q, in place, and k, and append k and v to the layer's KV cache; without these rotate q alone."""

    q: Value
    k: Value | None
    v: Value | None
    heads: Heads
    rope: Rope
    layer: int
    kernels: ClassVar[Variants] = {"rope": lambda isa: list(KV_BYTES)}

    @property
    def reads(self) -> tuple[Value, ...]:
        return tuple(value for value in (self.k, self.v) if value is not None)

    @property
    def changes(self) -> Value:
        return self.q

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {self.layer: KeysAndValues(self.heads, low.places, low.kv)} if self.k else {}

    def lower(self, low: Lowering, out: Value) -> None:
        q, kept = low.buffer(self.q), low.kept(self.layer)
        k, v = (low.buffer(value) if value else None for value in (self.k, self.v))
        assert isinstance(kept, KeysAndValues)
        args = Args(
            q=q.address,
            q_stride=q.stride,
            k=k.address if k else 0,
            v=v.address if v else 0,
            kv_stride=k.stride if k else 0,
            heads=self.heads.num_attention_heads,
            kv_heads=self.heads.num_key_value_heads if k else 0,
            head_dim=self.heads.head_dim,
            tables=int(shared_tables(low, self.rope).ctypes.data),
            query_tables=int(shared_tables(low, self.rope, queries=True).ctypes.data),
            half=len(self.rope.inverse_frequencies),
            interleaved=int(self.rope.interleaved),
            keys=kept.offset,
            values=kept.offset + kept.key_bytes,
            places=low.places,
            pages=low.pages(kept),
            positions=int(low.tables.positions.ctypes.data),
            tokens=low.tables.count(TOKENS),
        )
        low.tape.add(f"rope:{low.kv}", args, [], [q, k, v, kept] if k else [q])


def shared_tables(low: Lowering, rope: Rope, queries: bool = False) -> np.ndarray:
    """Those of a session, or its queries': layers with the same rope share them."""
    queries = queries and rope.query_growth > 0.0
    table = low.shared.get((rope, queries))
    if table is None:
        here = rope.for_context(low.asked)
        if queries:
            table = query_tables(shared_tables(low, rope), here.query_growth, here.query_span, here.query_first)
        else:
            table = rope_tables(here.inverse_frequencies, low.context, here.attention_factor)
        low.shared[rope, queries] = table
        low.scratch.nbytes += table.nbytes
    assert isinstance(table, np.ndarray)
    return table


def make_rotate():
    """`rotate(x, table, half, interleaved)`: one head at `x`; `table` holds cos[half], sin[half] of its position."""
    from edgeq.simd.memory import load_f32, store_f32
    from edgeq.simd.vector import device

    @device
    def rotate(x, table, half, interleaved):
        for i in range(half):
            first = x + (8 * i if interleaved != 0 else 4 * i)
            second = first + (4 if interleaved != 0 else 4 * half)
            a, b = load_f32(first), load_f32(second)
            c, s = load_f32(table + 4 * i), load_f32(table + 4 * (half + i))
            store_f32(first, a * c - b * s)
            store_f32(second, b * c + a * s)

    return rotate


def make(variant, isa):
    """`variant` is the cache's element. Threads share the heads of queries, keys and values of all tokens."""
    from edgeq.kernels.cache_rows import make_keep_rows
    from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
    from edgeq.kernels.page_table import page_of
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64

    arguments, rotate = words_of(Args), make_rotate()
    keep_key, keep_value = make_keep_rows(variant)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count = load_i64(a.tokens)
        every = a.heads + 2 * a.kv_heads
        for item in range(count * every * thread // n_threads, count * every * (thread + 1) // n_threads):
            token = item // every
            head = item - token * every
            position = load_i64(a.positions + 8 * token)
            table = a.tables + position * a.half * 8
            if head < a.heads:
                table = a.query_tables + position * a.half * 8
                rotate(a.q + token * a.q_stride + head * a.head_dim * 4, table, a.half, a.interleaved)
            elif head < a.heads + a.kv_heads:
                head -= a.heads
                source = a.k + token * a.kv_stride + head * a.head_dim * 4
                rotate(source, table, a.half, a.interleaved)
                keys = page_of(a.pages, token, position) + a.keys
                keep_key(source, keys, head, a.head_dim, a.places, position % BLOCK)
            else:
                head -= a.heads + a.kv_heads
                source = a.v + token * a.kv_stride + head * a.head_dim * 4
                values = page_of(a.pages, token, position) + a.values
                keep_value(source, values, head, a.head_dim, a.places, position % BLOCK)

    return kernel


def reference(x: np.ndarray, table: np.ndarray, interleaved: bool) -> np.ndarray:
    """The NumPy twin: rotate [tokens, heads, head_dim] f32 by `table` [tokens, 2, half]."""
    half = table.shape[2]
    cos, sin = table[:, None, 0], table[:, None, 1]
    result = x.copy()
    a, b = (
        (x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2])
        if interleaved
        else (x[..., :half], x[..., half : 2 * half])
    )
    first, second = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        result[..., 0 : 2 * half : 2], result[..., 1 : 2 * half : 2] = first, second
    else:
        result[..., :half], result[..., half : 2 * half] = first, second
    return result
