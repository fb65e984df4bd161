"""ERNIE 4.5: Llama that rotates neighbouring values of a head instead of its halves."""

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

THETA = 500000.0


def compose(config: Config) -> Model:
    """ERNIE 4.5's dense models: biases are everywhere or nowhere, in the MLP too."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads, bias = read_heads(config, n, head_dim=128), config.flag("use_bias")
    rotation = replace(rope(config, heads.head_dim, theta=THETA), interleaved=True)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation)
    mlp = gated(n, m, config.activation("hidden_act", "silu"), bias)
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("ernie4_5", config, size, attention, layers, norm, tied=True, settings={"rope_theta": THETA})
