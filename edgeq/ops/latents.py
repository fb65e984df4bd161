"""What latent attention keeps of a token (arXiv:2405.04434): its latent, normed, and behind it a key that all heads
share, rotated. Queries get their rotated part behind what meets the latents."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import bits
from edgeq.graph.heads import Heads
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.pages import Kept, KeysAndValues
from edgeq.graph.row_tables import TOKENS
from edgeq.graph.value import Value
from edgeq.kernels.layout import KV_BYTES
from edgeq.ops import norm, rope
from edgeq.ops.rope import Rope, shared_tables


class Args(NamedTuple):
    q: int
    q_stride: int  # bytes
    source: int  # of the queries' rotated parts, which end each head
    source_stride: int  # bytes
    source_dim: int  # values of a head there
    latents: int
    latents_stride: int  # bytes
    heads: int
    head_dim: int
    latent: int  # values of a head that are not rotated
    weight: int  # of the latents' norm
    eps: int  # f32 bits
    tables: int  # f32 cos[half], sin[half] of every position
    half: int
    interleaved: int  # 0 or 1
    keys: int  # where they begin in a page
    places: int  # of a page
    pages: int  # of each row's sequence: addresses of tables
    positions: int  # of rows
    tokens: int  # how many rows, at this address


@dataclass(frozen=True)
class Latents(Op):
    """Norm and rotate `latents`, in place, and append them to the layer's cache; the last values of each head of
    `source`, rotated, become the last of each head of q, which is changed.

    heads.latent values of the latents are normed, the others rotated; all of them are a key.
    """

    q: Value
    source: Value
    latents: Value
    weight: str
    eps: float
    heads: Heads
    rope: Rope
    layer: int
    kernels: ClassVar[Variants] = {"latents": lambda isa: list(KV_BYTES)}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.source, self.latents

    @property
    def changes(self) -> Value:
        return self.q

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {self.layer: KeysAndValues(self.heads, low.places, low.kv)}

    def lower(self, low: Lowering, out: Value) -> None:
        q, source, latents, kept = (
            low.buffer(out),
            low.buffer(self.source),
            low.buffer(self.latents),
            low.kept(self.layer),
        )
        assert isinstance(kept, KeysAndValues)
        args = Args(
            q=q.address,
            q_stride=q.stride,
            source=source.address,
            source_stride=source.stride,
            source_dim=self.source.width // self.heads.num_attention_heads,
            latents=latents.address,
            latents_stride=latents.stride,
            heads=self.heads.num_attention_heads,
            head_dim=self.heads.head_dim,
            latent=self.heads.latent,
            weight=low.vector(self.weight),
            eps=bits(self.eps),
            tables=int(shared_tables(low, self.rope).ctypes.data),
            half=len(self.rope.inverse_frequencies),
            interleaved=int(self.rope.interleaved),
            keys=kept.offset,
            places=low.places,
            pages=low.pages(kept),
            positions=int(low.tables.positions.ctypes.data),
            tokens=low.tables.count(TOKENS),
        )
        low.tape.add(f"latents:{low.kv}", args, [source], [q, latents, kept])


def make(variant, isa):
    """`variant` is the cache's element. Threads share the heads of queries and the latents of all tokens."""
    from edgeq.kernels.cache_rows import make_keep_rows
    from edgeq.kernels.layout import ATTENTION_BLOCK as BLOCK
    from edgeq.kernels.moments import rms_norm
    from edgeq.kernels.page_table import page_of
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import bits_f32, load_f32, load_i64, store_f32

    arguments, rotate = words_of(Args), rope.make_rotate()
    keep_key, _ = make_keep_rows(variant)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count, turned = load_i64(a.tokens), a.head_dim - a.latent
        every = a.heads + 1
        for item in range(count * every * thread // n_threads, count * every * (thread + 1) // n_threads):
            token = item // every
            head = item - token * every
            position = load_i64(a.positions + 8 * token)
            table = a.tables + position * a.half * 8
            if head < a.heads:
                source = a.source + token * a.source_stride + ((head + 1) * a.source_dim - turned) * 4
                target = a.q + token * a.q_stride + (head * a.head_dim + a.latent) * 4
                for i in range(0, 4 * turned, 4):
                    store_f32(target + i, load_f32(source + i))
                rotate(target, table, a.half, a.interleaved)
            else:
                latent = a.latents + token * a.latents_stride
                rms_norm(latent, a.latent, a.weight, bits_f32(a.eps))
                rotate(latent + 4 * a.latent, table, a.half, a.interleaved)
                keys = page_of(a.pages, token, position) + a.keys
                keep_key(latent, keys, 0, a.head_dim, a.places, position % BLOCK)

    return kernel


def reference(
    source: np.ndarray, latents: np.ndarray, weight: np.ndarray, eps: float, table: np.ndarray, interleaved: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The NumPy twin: source [tokens, heads, dim], latents [tokens, latent + rotated] f32, `table` [tokens, 2, half] ->
    the queries' rotated parts [tokens, heads, rotated], keys [tokens, latent + rotated]."""
    width = len(weight)
    turned = latents.shape[1] - width
    parts = rope.reference(source[:, :, source.shape[2] - turned :], table, interleaved)
    last = rope.reference(latents[:, None, width:], table, interleaved)[:, 0]
    return parts, np.concatenate([norm.reference(latents[:, :width], weight, eps), last], axis=1)
