"""Helium: Llama that rotates neighbouring values of a head instead of its halves."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

THETA = 100000.0


def compose(config: Config) -> Model:
    """There is no bias after the heads."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm, heads = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-8)), read_heads(config, n, 128)
    rotation = replace(rope(config, heads.head_dim, theta=THETA), interleaved=True)
    attention = Attention(separate(n, heads, config.flag("attention_bias")), output(n, heads), heads, rotation)
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("helium", config, size, attention, layers, norm, settings={"rope_theta": THETA})
