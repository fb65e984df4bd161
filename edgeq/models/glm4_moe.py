"""GLM 4.5: pre-norm, half of each head rotated, heads normed in the largest, experts after the first layers."""

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


def compose(config: Config) -> Model:
    """Layers that guess further tokens stay unused."""
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-5)
    norm, heads, bias = partial(RMSNorm, width=n, eps=eps), read_heads(config, n), config.flag("attention_bias")
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads),
        heads,
        rope(config, heads.head_dim, partial=0.5),
        head_norms(heads, eps) if config.flag("use_qk_norm") else None,
    )
    mlp, experts = gated(n, size.intermediate_size, "silu"), read_mixture(config, n)
    dense = dense_layers(config, "first_k_dense_replace", 1, size.num_hidden_layers)
    layers = [Layer(pre_norms(norm), attention, mlp if here else experts) for here in dense]
    return decoder("glm4_moe", config, size, attention, layers, norm)
