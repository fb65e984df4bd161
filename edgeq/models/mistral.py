"""Mistral: Llama whose attention may look back over a window only (arXiv:2310.06825)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

WINDOW = 4096


def compose(config: Config) -> Model:
    """v0.1 has a window of 4096, which is also what leaving it out means; later versions have null."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    window = config.integer("sliding_window", WINDOW) if config.get("sliding_window", WINDOW) else None
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim))
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    layers = [Layer(pre_norms(norm), attention.over(window), mlp)] * size.num_hidden_layers
    return decoder("mistral", config, size, attention, layers, norm)
