"""OLMo 2: Llama that norms what attention and MLP give instead of what they get, and q and k (arXiv:2501.00656)."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, post_norms
from edgeq.models.mixers import Attention, output, separate, whole_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Queries and keys are normed over all heads at once."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-5)
    norm = partial(RMSNorm, width=n, eps=eps)
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim),
        whole_norms(heads, eps),
    )
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    layers = [Layer(post_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("olmo2", config, size, attention, layers, norm)
