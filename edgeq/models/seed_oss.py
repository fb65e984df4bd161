"""Seed-OSS: Llama with a bias of q, k and v, and perhaps one after the heads."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """The norm before the MLP is named after the attention."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm, heads = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6)), read_heads(config, n, 128)
    qkv = separate(n, heads, config.flag("attention_bias", True))
    rotation = rope(config, heads.head_dim)
    attention = Attention(qkv, output(n, heads, config.flag("attention_out_bias")), heads, rotation)
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    norms = PreNorms(norm("attn_norm", "input_layernorm"), norm("post_attention_norm", "post_attention_layernorm"))
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return decoder("seed_oss", config, size, attention, layers, norm)
