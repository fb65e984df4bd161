"""dots.llm1: pre-norm, heads normed, some layers perhaps local, experts after the first ones (arXiv:2506.05767)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.sigmoid_mixture import dense_layers, read_mixture
from edgeq.models.windows import by_layer


def compose(config: Config) -> Model:
    """Its weights are normalized only where its configuration says so."""
    size = read_dimensions(config)
    n, eps, count = size.hidden_size, config.number("rms_norm_eps", 1e-6), size.num_hidden_layers
    norm, heads, bias = partial(RMSNorm, width=n, eps=eps), read_heads(config, n), config.flag("attention_bias")
    rotation = rope(config, heads.head_dim)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, head_norms(heads, eps))
    mlp, experts = gated(n, size.intermediate_size, "silu"), read_mixture(config, n, normalized=False)
    windowed, first = config.get("sliding_window", 4096) is not None, config.get("max_window_layers", 62)
    windows = by_layer(config, [windowed and i >= first for i in range(count)])
    layers = [
        Layer(pre_norms(norm), attention.over(window), mlp if dense else experts)
        for window, dense in zip(windows, dense_layers(config, "first_k_dense_replace", 0, count), strict=True)
    ]
    return decoder("dots1", config, size, attention, layers, norm)
