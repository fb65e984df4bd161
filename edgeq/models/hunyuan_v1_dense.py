"""Hunyuan's dense models: Llama that norms queries and keys after they are rotated."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import HeadNorm, RMSNorm
from edgeq.models.rope_scaling import rope, rope_parameters, scaling_type
from edgeq.ops import Rope


def compose(config: Config) -> Model:
    """Hunyuan 0.5B to 7B."""
    size = read_dimensions(config)
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("rms_norm_eps", 1e-5)
    norm, attention = partial(RMSNorm, width=n, eps=eps), read_attention(config, n, eps)
    mlp = gated(n, m, config.activation("hidden_act", "silu"))
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("hunyuan_v1_dense", config, size, attention, layers, norm)


def read_attention(config: Config, n: int, eps: float) -> Attention:
    """Of a layer whose residual stream has `n` values; `eps` is that of the norms of heads."""
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    norms = (
        HeadNorm("attn_q_norm", "self_attn.query_layernorm", heads.head_dim, eps),
        HeadNorm("attn_k_norm", "self_attn.key_layernorm", heads.head_dim, eps),
    )
    rotation = read_rope(config, heads.head_dim)
    return Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation, norms, turned=True)


def read_rope(config: Config, head_dim: int) -> Rope:
    """A dynamic scaling with an `alpha` is a larger theta, whatever the session's length."""
    given = config.within(rope_parameters(config))
    if scaling_type(given.values) != "dynamic" or not given.get("alpha") or head_dim <= 2:
        return rope(config, head_dim)
    theta = (given if "rope_theta" in given else config).number("rope_theta", 10000.0)
    theta *= given.number("alpha") ** (head_dim / (head_dim - 2))
    return rope(config.changed(rope_theta=theta, rope_parameters=None, rope_scaling=None), head_dim)
