"""Attention's steps: rotate queries and keys, keep keys and values in the layer's cache, and attend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeq.kernels.layout import ATTENTION_BLOCK, ATTENTION_ROWS, attention_places, heads_per_tile
from edgeq.models.graph import Heads
from edgeq.runtime.kv_cache import KVCache, rope_tables
from edgeq.runtime.memory import bits, round_up
from edgeq.runtime.plan import POSITION, TOKENS
from edgeq.runtime.record import Operation

if TYPE_CHECKING:
    from edgeq.runtime.compiler import Compiler


@dataclass(frozen=True)
class AttentionMemory:
    """Of the kernel (see kernels/attention.py): scratch of so many bytes per thread, partial results, counters."""

    scratch: np.ndarray
    per_thread: int
    partials: np.ndarray
    counters: np.ndarray


def _rope(c: Compiler, op: Operation) -> None:
    assert op.heads is not None and op.rope is not None
    q, (k, v) = c.buffers[op.output.index], (c.buffers[x.index] for x in op.inputs)
    heads, cache = op.heads, KVCache(op.heads, c.context, c.capacity[False], c.kv)
    c.caches[op.layer] = cache
    args = [
        q.address,
        q.stride,
        k.address,
        v.address,
        k.stride,
        heads.num_attention_heads,
        heads.num_key_value_heads,
        heads.head_dim,
        _tables(c, op).ctypes.data,
        len(op.rope.inverse_frequencies),
        int(op.rope.interleaved),
        cache.keys.ctypes.data,
        cache.values.ctypes.data,
        cache.ring,
        c.param(TOKENS),
        c.param(POSITION),
    ]
    c.tape.add(f"rope:{c.kv}", args, [], [q, k, v, cache])


def _tables(c: Compiler, op: Operation) -> np.ndarray:
    assert op.rope is not None
    if op.rope not in c.tables:
        rope = op.rope.for_context(c.context)
        table = rope_tables(rope.inverse_frequencies, c.context, rope.attention_factor)
        c.scratch.nbytes += table.nbytes
        c.tables[op.rope] = table
    return c.tables[op.rope]


def _attention(c: Compiler, op: Operation) -> None:
    assert op.heads is not None
    q, out, heads = c.buffers[op.inputs[0].index], c.buffers[op.output.index], op.heads
    cache, memory = c.caches[op.layer], _memory(c, op.heads)
    assert isinstance(cache, KVCache)
    args = [
        q.address,
        q.stride,
        out.address,
        out.stride,
        heads.num_attention_heads,
        heads.num_key_value_heads,
        heads.head_dim,
        cache.keys.ctypes.data,
        cache.values.ctypes.data,
        cache.ring,
        bits(heads.scale or 1.0 / math.sqrt(heads.head_dim)),
        heads.sliding_window or 0,
        memory.scratch.ctypes.data,
        memory.per_thread,
        c.param(TOKENS),
        c.param(POSITION),
        *(out.packed if op.packs else (0, 0)),
        memory.partials.ctypes.data,
        memory.counters.ctypes.data,
        bits(heads.softcap),
        c.vector(heads.sinks) if heads.sinks else 0,
        int(not heads.causal),
    ]
    c.tape.add(f"attention:{_tile(c, heads)}-{c.kv}", args, [q, cache], [out], counts_turns=True)


def _tile(c: Compiler, heads: Heads) -> int:
    return heads_per_tile(heads.num_attention_heads, heads.num_key_value_heads, c.tile)


def _memory(c: Compiler, heads: Heads) -> AttentionMemory:
    """Layers with the same heads run in turn and share it."""
    heads = replace(heads, sinks="")
    if heads not in c.attention_memory:
        group = heads.num_attention_heads // heads.num_key_value_heads
        per_thread = attention_places(0, round_up(max(ATTENTION_ROWS, group), c.tile), heads.head_dim)[-1]
        rows = round_up(group, _tile(c, heads))
        blocks = heads.num_key_value_heads * -(-c.context // ATTENTION_BLOCK)
        c.attention_memory[heads] = AttentionMemory(
            c.scratch.new(c.threads * per_thread),
            per_thread,
            c.scratch.new(blocks * rows * 4 * (round_up(heads.head_dim, 16) + 2)),
            c.scratch.new(heads.num_key_value_heads * 8),
        )
    return c.attention_memory[heads]


STEPS: dict[str, Callable[[Compiler, Operation], None]] = {"rope": _rope, "attention": _attention}
