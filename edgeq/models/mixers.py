"""What mixes tokens in a layer: attention, or a short convolution; delta_mixer.py has more."""

from dataclasses import replace
from typing import NamedTuple, Protocol

from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.norms import HeadLayerNorm, HeadNorm, LayerNorm, PlainHeadNorm, RMSNorm
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import NO_ROPE, Graph, Heads, Rope, Value

Projections = tuple[Matrix, Matrix, Matrix]  # to queries, keys and values
HeadNorms = (
    tuple[HeadNorm, HeadNorm]
    | tuple[HeadLayerNorm, HeadLayerNorm]
    | tuple[RMSNorm, RMSNorm]
    | tuple[LayerNorm, LayerNorm]
    | tuple[PlainHeadNorm, PlainHeadNorm]
)


class Mixer(Protocol):
    """The part of a layer in which a token sees others."""

    def tensors(self, t: Tensors) -> None:
        """Add what it needs."""

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""


class Attention(NamedTuple):
    """Attention with rotary embedding.

    norms:      of queries and keys before they are rotated: of each head, or of all at once
    inner_norm: of what the heads give, before the output projection
    sinks:      the checkpoint's name of a further score per head (see Heads), if there are such
    value_norm: of values
    distances:  the tensor of the checkpoint, one for all layers, of what is added by distance, and its buckets
    reads:      the number of the layer whose keys and values it sees, having none of its own
    clip:       queries, keys and values are held within this, if it is not 0
    keys_twice: values are the keys as they are before their norm
    turned:     `norms` are of heads after they are rotated. The length of a head is the same before and after, and what
                the weights of the keys multiply may as well multiply the queries: keys are normed without weights
                before, and queries after with the product of both.
    grid:       rows lie in a grid, and each half of a head is rotated by this, see ops/grid_rope.py
    gate:       what the heads give is multiplied by the sigmoid of this projection, before the output projection: of a
                value for each of theirs, or for each head
    """

    qkv: Projections
    output: Matrix
    heads: Heads
    rope: Rope
    norms: HeadNorms | None = None
    inner_norm: RMSNorm | None = None
    sinks: str = ""
    turned: bool = False
    gate: Matrix | None = None
    value_norm: PlainHeadNorm | None = None
    reads: int | None = None
    keys_twice: bool = False
    clip: float = 0.0
    distances: tuple[str, int] | None = None
    grid: Rope | None = None

    def tensors(self, t: Tensors) -> None:
        """The projections, the norms, the sinks, the values by distance."""
        own = 3 if self.reads is None else 1
        projections = self.qkv[: min(own, 2) if self.keys_twice else own]
        for part in (*projections, self.output, *(self.norms or ())[:own]):
            part.tensors(t)
        if self.inner_norm:
            self.inner_norm.tensors(t)
        if self.gate:
            self.gate.tensors(t)
        if self.sinks:
            t.vector("attn_sinks.weight", self.sinks, self.heads.num_attention_heads)
        if self.distances:
            t.shared("attn_rel_b.weight", *self.distances, self.heads.num_attention_heads)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        heads = replace(self.heads, sinks=f"{at}attn_sinks.weight") if self.sinks else self.heads
        if self.distances:
            heads = replace(heads, distances=f"{at}attn_rel_b.weight")
        if self.reads is not None:
            return self._out(g, self._of_another(g, h, heads, at), at, add_to)
        q, k = (projection.graph(g, h, at) for projection in self.qkv[:2])
        v = self.value_norm.beside(g, k) if self.keys_twice and self.value_norm else self.qkv[2].graph(g, h, at)
        if self.clip:
            q, k, v = (g.clip(value, self.clip) for value in (q, k, v))
        if self.norms and self.turned:
            eps, both = self.norms[0].eps, tuple(f"{at}attn_{part}_norm.weight" for part in "qk")
            k = g.head_norm(k, (), heads.head_dim, eps)
            q = g.rotate(q, k, v, heads, self.rope, layer=i)
            seen = g.attend(g.head_norm(q, both, heads.head_dim, eps), heads, layer=i)
            return self._out(g, seen, at, add_to)
        if self.norms:
            q, k = self.norms[0].graph(g, q, at), self.norms[1].graph(g, k, at)
        if self.grid:
            q, k = (g.rotate_in_grid(each, heads.head_dim, self.grid) for each in (q, k))
        if self.value_norm and not self.keys_twice:
            v = self.value_norm.graph(g, v)
        opened = self.gate.graph(g, h, at) if self.gate else None
        seen = g.attention(q, k, v, heads, self.rope, layer=i)
        if self.gate and opened:
            seen = (g.head_gate if self.gate.rows == heads.num_attention_heads else g.sigmoid_mul)(seen, opened)
        return self._out(g, seen, at, add_to)

    def _of_another(self, g: Graph, h: Value, heads: Heads, at: str) -> Value:
        """What heads see of the keys and values of layer `reads`."""
        assert self.reads is not None and not self.turned
        q = self.qkv[0].graph(g, h, at)
        if self.norms:
            q = self.norms[0].graph(g, q, at)
        return g.attend(g.rotate(q, None, None, heads, self.rope, layer=self.reads), heads, layer=self.reads)

    def _out(self, g: Graph, seen: Value, at: str, add_to: Value | None) -> Value:
        """From what the heads give."""
        if self.inner_norm:
            seen = self.inner_norm.graph(g, seen, at)
        return self.output.graph(g, seen, at, add_to)

    def over(self, window: int | None, chunked: bool = False) -> "Attention":
        """The same that looks back over so many positions only, or within chunks of so many."""
        return self._replace(heads=replace(self.heads, sliding_window=window, chunked=chunked))

    def seeing(self, whole: int) -> "Attention":
        """The same in texts with images, see Heads.whole_images."""
        return self._replace(heads=replace(self.heads, whole_images=whole))


class NoAttention(NamedTuple):
    """What there is of attention in a model without it."""

    heads: Heads = Heads(0, 0, 0)
    rope: Rope = NO_ROPE


class ShortConvolution(NamedTuple):
    """A causal convolution of each channel over `taps` positions, between two gates."""

    channels: int
    taps: int
    bias: bool

    @property
    def into(self) -> Matrix:
        """The gate before, the gate after and the input, one after the other."""
        return Matrix("shortconv.in_proj", "conv.in_proj", 3 * self.channels, self.channels, self.bias)

    @property
    def output(self) -> Matrix:
        """Back into the residual stream."""
        return Matrix("shortconv.out_proj", "conv.out_proj", self.channels, self.channels, self.bias)

    def tensors(self, t: Tensors) -> None:
        """Two projections, the convolution between them."""
        self.into.tensors(t)
        t.depthwise("shortconv.conv", "conv.conv", self.channels, self.taps, self.bias)
        self.output.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        conv = f"{at}shortconv.conv"
        x = g.short_conv(self.into.graph(g, h, at), f"{conv}.weight", f"{conv}.bias" if self.bias else None, layer=i)
        return self.output.graph(g, x, at, add_to)


def query_width(heads: Heads) -> int:
    """Values of all query heads."""
    return heads.num_attention_heads * heads.head_dim


def key_width(heads: Heads) -> int:
    """Values of all key heads, and of all value heads."""
    return heads.num_key_value_heads * heads.head_dim


def separate(
    n: int,
    heads: Heads,
    bias: bool = False,
    source: str = "self_attn.{}_proj",
    names: tuple[str, str, str] = ("q", "k", "v"),
    ternary: bool = False,
) -> Projections:
    """From `n` values, a tensor each in the checkpoint: `source`, `{}` standing for one of `names`."""
    q, k, v = (source.format(name) for name in names)
    return (
        Matrix("attn_q", q, query_width(heads), n, bias, ternary=ternary),
        Matrix("attn_k", k, key_width(heads), n, bias, ternary=ternary),
        Matrix("attn_v", v, key_width(heads), n, bias, ternary=ternary),
    )


def fused(n: int, heads: Heads, source: str, bias: bool = False, transposed: bool = False) -> Projections:
    """From `n` values, in one tensor: all rows of q, then those of k, then those of v."""
    q, kv = query_width(heads), key_width(heads)
    return (
        Matrix("attn_q", source, q, n, bias, Fused(q + 2 * kv), transposed),
        Matrix("attn_k", source, kv, n, bias, Fused(q + 2 * kv, first=q), transposed),
        Matrix("attn_v", source, kv, n, bias, Fused(q + 2 * kv, first=q + kv), transposed),
    )


def fused_by_head(n: int, heads: Heads, source: str, bias: bool = False) -> Projections:
    """From `n` values, in one tensor: per key/value head its query heads, its key, its value."""
    q, kv, head = query_width(heads), key_width(heads), heads.head_dim
    group = q // heads.num_key_value_heads
    rows, step = q + 2 * kv, group + 2 * head
    return (
        Matrix("attn_q", source, q, n, bias, Fused(rows, 0, group, step)),
        Matrix("attn_k", source, kv, n, bias, Fused(rows, group, head, step)),
        Matrix("attn_v", source, kv, n, bias, Fused(rows, group + head, head, step)),
    )


def output(n: int, heads: Heads, bias: bool = False, source: str = "self_attn.o_proj", ternary: bool = False) -> Matrix:
    """From what the heads give back to `n` values."""
    return Matrix("attn_output", source, n, query_width(heads), bias, ternary=ternary)


def head_norms(
    heads: Heads, eps: float, add: float = 0.0, sources: tuple[str, str] = ("self_attn.q_norm", "self_attn.k_norm")
) -> tuple[HeadNorm, HeadNorm]:
    """A norm on every query head, one on every key head."""
    return (
        HeadNorm("attn_q_norm", sources[0], heads.head_dim, eps, add),
        HeadNorm("attn_k_norm", sources[1], heads.head_dim, eps, add),
    )


def whole_norms(heads: Heads, eps: float) -> tuple[RMSNorm, RMSNorm]:
    """A norm over all query heads at once, one over all key heads."""
    return (
        RMSNorm("attn_q_norm", "self_attn.q_norm", query_width(heads), eps),
        RMSNorm("attn_k_norm", "self_attn.k_norm", key_width(heads), eps),
    )
