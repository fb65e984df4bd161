"""Code World Model: Llama with three local layers after each global one (arXiv:2510.02387)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.windows import by_layer

THETA = 1000000.0
# What leaving out the rotary embedding means
ROPE = {
    "rope_type": "llama3",
    "rope_theta": THETA,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def compose(config: Config) -> Model:
    """The first layer is global."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads = read_heads(config.usually(num_key_value_heads=8), n, 128)
    if not config.get("rope_parameters") and not config.get("rope_scaling"):
        config = config.changed(rope_parameters=ROPE)
    rotation = whole_rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads), output(n, heads), heads, rotation)
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    usual = [i % 4 != 0 for i in range(size.num_hidden_layers)]
    windows = by_layer(config.usually(sliding_window=8192), usual)
    layers = [Layer(pre_norms(norm), attention.over(window), mlp) for window in windows]
    return decoder("cwm", config, size, attention, layers, norm, settings={"rope_theta": THETA})
