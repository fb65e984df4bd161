"""Qwen3: Qwen2 without biases, with a norm on every query and key head (arXiv:2505.09388)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.qwen2 import read_windows
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Biases are where the configuration says."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-6)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n, head_dim=128), config.flag("attention_bias")
    windows = read_windows(config, size.num_hidden_layers)
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim),
        head_norms(heads, eps),
    )
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    norms = pre_norms(norm)
    layers = [Layer(norms, attention.over(window), mlp) for window in windows]
    return decoder("qwen3", config, size, attention, layers, norm)
