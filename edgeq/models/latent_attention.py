"""Multi-head latent attention (arXiv:2405.04434): keys and values of all heads are made of one latent per token, and so
is what is kept of it.

A head's key is W c beside a part that all heads share, which is rotated; its value is V c. As q (W c) = (q W) c,
queries meet the latents themselves: c and the rotated part are the only key, c is the only value, and V multiplies what
a head has seen. The cache holds a latent and a rotated part per token and layer, whatever the number of heads."""

import math
from dataclasses import replace
from typing import NamedTuple

from edgeq.models.config import Config
from edgeq.models.dimensions import LARGEST_HEAD
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope_parameters, scaling_type, whole_rope
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Graph, Heads, Rope, Value

EPS = 1e-6  # of the norms of latents, whatever that of others is


class LowRank(NamedTuple):
    """A projection through fewer values, which are normed."""

    down: Matrix
    norm: RMSNorm
    up: Matrix

    def tensors(self, t: Tensors) -> None:
        """The matrices, the norm."""
        for part in self:
            part.tensors(t)

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """Of x; `at` is what the layer's names begin with."""
        return self.up.graph(g, self.norm.graph(g, self.down.graph(g, x, at), at), at)


class LatentAttention(NamedTuple):
    """heads:   their keys are latents with rotated parts behind them
    key_dim:   values of a head's own part of a key, made of the latent
    value_dim: those of its value
    """

    query: Matrix | LowRank
    latents: Matrix
    norm: RMSNorm
    output: Matrix
    heads: Heads
    rope: Rope
    key_dim: int
    value_dim: int

    def tensors(self, t: Tensors) -> None:
        """The projections, the norms; of each head the matrix that takes queries to latents, and that of values."""
        for part in (self.query, self.latents, self.norm):
            part.tensors(t)
        heads, latent, step = self.heads.num_attention_heads, self.heads.latent, self.key_dim + self.value_dim
        t.turned_heads("attn_k_b", "self_attn.kv_b_proj", heads, latent, self.key_dim, step)
        values = Fused(heads * step, self.key_dim, self.value_dim, step)
        t.slice("attn_v_b", "self_attn.kv_b_proj", heads * self.value_dim, latent, values)
        self.output.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at, count, heads = layer_name(i), self.heads.num_attention_heads, self.heads
        query, latents = self.query.graph(g, h, at), self.latents.graph(g, h, at)
        q = g.head_linear(query, f"{at}attn_k_b.weight", count, heads.head_dim)
        weight = f"{at}{self.norm.name}.weight"
        q = g.latents(q, query, latents, weight, self.norm.eps, heads, self.rope, layer=i)
        seen = g.head_linear(g.attend(q, heads, layer=i), f"{at}attn_v_b.weight", count, self.value_dim)
        return self.output.graph(g, seen, at, add_to)


def read_latent_attention(config: Config, n: int, interleaved: bool) -> LatentAttention:
    """Of a layer whose residual stream has `n` values, as DeepSeek's configurations say it; `interleaved`: neighbours
    are rotated. UnsupportedError for sizes that are no multiple of 16, and for rotated parts that are rotated in
    part."""
    heads = config.integer("num_attention_heads", most=LARGEST_HEAD)
    latent = config.integer("kv_lora_rank", most=LARGEST_HEAD)
    own, turned = (config.integer(f"qk_{part}_head_dim", most=LARGEST_HEAD) for part in ("nope", "rope"))
    values = config.integer("v_head_dim", most=LARGEST_HEAD)
    for key, value in (("kv_lora_rank", latent), ("v_head_dim", values)):
        if value % 16:
            raise config.unsupported(f"{key} is {value}, a multiple of 16 is needed")
    if config.integer("num_key_value_heads", heads) != heads:
        raise config.malformed(f"{heads} query heads have as many keys, num_key_value_heads says otherwise")
    bias, rows = config.flag("attention_bias"), heads * (own + turned)
    query: Matrix | LowRank
    if config.get("q_lora_rank") is None:
        query = Matrix("attn_q", "self_attn.q_proj", rows, n)
    else:
        rank = config.integer("q_lora_rank", most=LARGEST_HEAD)
        query = LowRank(
            Matrix("attn_q_a", "self_attn.q_a_proj", rank, n, bias),
            RMSNorm("attn_q_a_norm", "self_attn.q_a_layernorm", rank, EPS),
            Matrix("attn_q_b", "self_attn.q_b_proj", rows, rank),
        )
    return LatentAttention(
        query,
        Matrix("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", latent + turned, n, bias),
        RMSNorm("attn_kv_a_norm", "self_attn.kv_a_layernorm", latent, EPS),
        Matrix("attn_output", "self_attn.o_proj", n, heads * values, bias),
        Heads(heads, 1, latent + turned, scale=read_scale(config, own + turned), latent=latent),
        replace(whole_rope(config, turned), interleaved=interleaved),
        own,
        values,
    )


def read_scale(config: Config, key_dim: int) -> float:
    """What scores are multiplied by: a rotary embedding that is scaled may ask for more."""
    scaling = config.within(rope_parameters(config))
    grown = 1.0
    if scaling_type(scaling.values) != "default" and scaling.get("mscale_all_dim"):
        factor = scaling.number("factor")
        grown = 0.1 * scaling.number("mscale_all_dim") * math.log(factor) + 1.0 if factor > 1.0 else 1.0
    return grown * grown / math.sqrt(key_dim)
