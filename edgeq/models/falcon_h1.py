"""Falcon-H1: each layer has attention and Mamba-2 beside one another, and factors nearly everywhere
(arXiv:2507.22448)."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import GatedMLP, gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mamba_mixer import NO_SCALES, Mamba2, read_mamba
from edgeq.models.matrix import layer_name
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value

# What a configuration says whose weights are multiplied already
WITHOUT_FACTORS = {
    "embedding_multiplier": 1.0,
    "lm_head_multiplier": 1.0,
    "key_multiplier": 1.0,
    "attention_in_multiplier": 1.0,
    "attention_out_multiplier": 1.0,
    "ssm_in_multiplier": 1.0,
    "ssm_out_multiplier": 1.0,
    "mlp_multipliers": [1.0, 1.0],
    "ssm_multipliers": [1.0, 1.0, 1.0, 1.0, 1.0],
}


class Beside(NamedTuple):
    """Attention and Mamba of the same values; what each gives is multiplied by a factor."""

    attention: Attention
    mamba: Mamba2
    of_attention: float
    of_mamba: float

    def tensors(self, t: Tensors) -> None:
        """Those of both."""
        self.attention.tensors(t)
        self.mamba.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        assert add_to is not None, "both are added to something"
        x = g.add(add_to, self.mamba.graph(g, h, i), self.of_mamba)
        return g.add(x, self.attention.graph(g, h, i), self.of_attention)


class ScaledMLP(NamedTuple):
    """A gated MLP whose gate is multiplied by a factor before it is activated, and its result by another."""

    mlp: GatedMLP
    of_gate: float
    of_result: float

    def tensors(self, t: Tensors) -> None:
        """The MLP's."""
        self.mlp.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        assert add_to is not None, "it is added to something"
        at = layer_name(i)
        gate, up = g.scale(self.mlp.gate.graph(g, h, at), self.of_gate), self.mlp.up.graph(g, h, at)
        return g.add(add_to, self.mlp.down.graph(g, g.silu_mul(gate, up), at), self.of_result)


def compose(config: Config) -> Model:
    """All layers alike."""
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    mamba = read_mixer(config, n, eps)
    heads = read_heads(config.usually(num_key_value_heads=8), n)
    config.refuse(attention_bias=False)  # as what is read is multiplied
    into, by_key = config.number("attention_in_multiplier", 1.0), config.number("key_multiplier", 1.0)
    heads = replace(heads, scale=heads.head_dim**-0.5 * by_key * into * into)
    attention = Attention(separate(n, heads), output(n, heads), heads, rope(config, heads.head_dim, theta=10000.0))
    mixer = Beside(
        attention,
        mamba,
        config.number("attention_out_multiplier", 1.0) * into,
        config.number("ssm_out_multiplier", 1.0),
    )
    of_gate, of_result = read_factors(config, "mlp_multipliers", 2)
    config.refuse(mlp_bias=False)
    mlp = gated(n, size.intermediate_size, "silu", source="feed_forward.{}")
    norms = PreNorms(norm("attn_norm", "input_layernorm"), norm("ffn_norm", "pre_ff_layernorm"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"))
    return Model(
        "falcon_h1",
        size,
        attention,
        Embedding(embedding, factor=config.number("embedding_multiplier", 1.0)),
        [Layer(norms, mixer, ScaledMLP(mlp, of_gate, of_result))] * size.num_hidden_layers,
        Head(norm("output_norm", "model.final_layernorm"), head, factor=config.number("lm_head_multiplier", 1.0)),
    )


def read_mixer(config: Config, n: int, eps: float) -> Mamba2:
    """Its norm is there if the configuration says so."""
    by_width = "mamba_d_ssm" in config and config.get("mamba_d_ssm") is None
    inner = None if by_width else config.integer("mamba_d_ssm", 1024)
    scales, into = read_factors(config, "ssm_multipliers", 5), config.number("ssm_in_multiplier", 1.0)
    bias = config.flag("mamba_proj_bias")
    if bias and (into != 1.0 or scales != list(NO_SCALES)):
        raise config.unsupported("mamba_proj_bias beside multipliers is not supported")
    gate, values, written, read, step = (into * scale for scale in scales)
    return Mamba2(
        n,
        read_mamba(config, n, inner),
        "mamba",
        bias,
        config.flag("mamba_conv_bias", True),
        config.flag("projectors_bias"),
        eps if config.flag("mamba_rms_norm") else 0.0,
        gate_first=not config.flag("mamba_norm_before_gate", True),
        scales=(gate, values, written, read, step),
    )


def read_factors(config: Config, key: str, count: int) -> list[float]:
    """So many positive numbers, ones where nothing is said."""
    given = config.get(key)
    if given is None:
        return [1.0] * count
    if not isinstance(given, list) or len(given) != count:
        raise config.malformed(f"{key} is {shown(given)}, a list of {count} numbers is needed")
    return [config.within({key: each}).number(key) for each in given]
