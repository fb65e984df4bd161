"""Qwen2 and Qwen2.5: Llama with a bias on q, k and v, and often a tied head (arXiv:2407.10671)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import Windows, by_layer


def compose(config: Config) -> Model:
    """q, k and v always have a bias, the output projection never."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    heads = read_heads(config, n)
    windows = read_windows(config, size.num_hidden_layers)
    attention = Attention(separate(n, heads, bias=True), output(n, heads), heads, rope(config, heads.head_dim))
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    norms = pre_norms(norm)
    layers = [Layer(norms, attention.over(window), mlp) for window in windows]
    return decoder("qwen2", config, size, attention, layers, norm)


def read_windows(config: Config, layers: int) -> Windows:
    """Off unless `use_sliding_window`; then the layers before `max_window_layers` see everything."""
    if not config.flag("use_sliding_window") or not config.get("sliding_window", 4096):
        return [None] * layers
    full = config.get("max_window_layers", 28)
    if not isinstance(full, int):
        raise config.malformed(f"max_window_layers is {full!r}, an integer is needed")
    return by_layer(config, [i >= full for i in range(layers)])
