"""OLMo 1: Llama with norms that have no weights, and queries, keys and values within a limit (arXiv:2402.00838)."""

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import PlainLayerNorm
from edgeq.models.rope_scaling import rope

NORM = PlainLayerNorm(1e-5)


def compose(config: Config) -> Model:
    """Some checkpoints have no limit."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    rotation, clip = rope(config, heads.head_dim), config.optional("clip_qkv")
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, clip=clip)
    mlp = gated(n, m, config.activation("hidden_act", "silu"))
    layers = [Layer(PreNorms(NORM, NORM), attention, mlp)] * size.num_hidden_layers
    return decoder("olmo", config, size, attention, layers, lambda name, source: NORM)
