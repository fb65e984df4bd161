"""Solar Open: GLM 4.5 with experts in every layer, and all of a head rotated."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.sigmoid_mixture import read_mixture


def compose(config: Config) -> Model:
    """Its experts are its only feed-forwards."""
    size = read_dimensions(config.changed(intermediate_size=config.integer("moe_intermediate_size", 1280)))
    n, bias = size.hidden_size, config.flag("attention_bias")
    norm, heads = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5)), read_heads(config, n, 128)
    rotation = rope(config, heads.head_dim, theta=1000000.0)
    attention = Attention(separate(n, heads, bias), output(n, heads), heads, rotation)
    layers = [Layer(pre_norms(norm), attention, read_mixture(config, n))] * size.num_hidden_layers
    return decoder("solar_open", config, size, attention, layers, norm)
