"""Llama (1, 2, 3.x): pre-norm, rotary grouped-query attention, SwiGLU (arXiv:2302.13971)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Llama, as the configuration says."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim))
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("llama", config, size, attention, layers, norm)
