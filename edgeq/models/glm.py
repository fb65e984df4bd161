"""GLM-4 9B: Llama whose checkpoints fuse gate and up; of each head a part is rotated, by neighbours
(arXiv:2406.12793)."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import fused_gated
from edgeq.models.layers import Layer, Norms, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import NamedNorm, RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Biases are those of q, k and v."""
    size = read_dimensions(config)
    norm = partial(RMSNorm, width=size.hidden_size, eps=config.number("rms_norm_eps", 1.5625e-7))
    return glm("glm", config, size, norm, pre_norms(norm))


def glm(name: str, config: Config, size: Dimensions, norm: NamedNorm, norms: Norms) -> Model:
    """The model with these `norms` in its layers."""
    n, m = size.hidden_size, size.intermediate_size
    heads = read_heads(config, n, head_dim=128)
    rotation = replace(rope(config, heads.head_dim, partial=0.5), interleaved=True)
    bias = config.flag("attention_bias", True)
    attention = Attention(separate(n, heads, bias), output(n, heads), heads, rotation)
    mlp = fused_gated(n, m, config.activation("hidden_act", "silu"))
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return decoder(name, config, size, attention, layers, norm)
