"""Bamba: layers of Mamba-2, or of attention that rotates half of each head; each with an MLP."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.granitemoehybrid import read_mixer
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, Mixer, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Half of each head is rotated, whatever is said beside the rotary embedding's parameters."""
    size = read_dimensions(config.usually(max_position_embeddings=262_144))
    n, eps, bias = size.hidden_size, config.number("rms_norm_eps", 1e-5), config.flag("attention_bias")
    heads = read_heads(config.usually(num_key_value_heads=8), n)
    rotation = rope(config.changed(partial_rotary_factor=0.5), heads.head_dim)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation)
    mamba = read_mixer(config, n, eps)
    activation = config.activation("hidden_act", "silu")
    mlp = gated(n, size.intermediate_size, activation, config.flag("mlp_bias"), source="feed_forward.{}")
    norm = partial(RMSNorm, width=n, eps=eps)
    norms = PreNorms(norm("attn_norm", "input_layernorm"), norm("ffn_norm", "pre_ff_layernorm"))
    mixers: tuple[Mixer, Mixer] = mamba, attention
    layers = [Layer(norms, mixers[attends], mlp) for attends in read_attending(config, size.num_hidden_layers)]
    return decoder("bamba", config, size, attention, layers, norm, last="model.final_layernorm")


def read_attending(config: Config, layers: int) -> list[bool]:
    """Which layers are of attention, none where nothing is said; CheckpointError for a list that is none of layers."""
    given = config.get("attn_layer_indices") or []
    if not isinstance(given, list) or not all(type(one) is int and 0 <= one < layers for one in given):
        raise config.malformed(f"attn_layer_indices is {shown(given)}, a list of numbers below {layers} is needed")
    return [i in given for i in range(layers)]
