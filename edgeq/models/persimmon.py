"""Persimmon, and what Fuyu writes with: GPT-NeoX' matrices, squared ReLU, LayerNorm of each query and key head."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import checked, read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, fused_by_head, output
from edgeq.models.norms import HeadLayerNorm, LayerNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Every matrix of a layer has a bias; every head has a key and a value of its own."""
    size = read_dimensions(config.usually(max_position_embeddings=16384))
    n, eps = size.hidden_size, config.number("layer_norm_eps", 1e-5)
    norm, count = partial(LayerNorm, width=n, eps=eps), config.integer("num_attention_heads")
    heads = checked(config, count, count, n // count)
    attention = Attention(
        fused_by_head(n, heads, "self_attn.query_key_value", True),
        output(n, heads, True, "self_attn.dense"),
        heads,
        rope(config, heads.head_dim, partial=0.5),
    )
    if config.flag("qk_layernorm", True):
        head_norm = partial(HeadLayerNorm, head_dim=heads.head_dim, eps=eps)
        norms = head_norm("attn_q_norm", "self_attn.q_layernorm"), head_norm("attn_k_norm", "self_attn.k_layernorm")
        attention = attention._replace(norms=norms)
    kind = config.activation("hidden_act", "relu2")
    mlp = plain(n, size.intermediate_size, kind, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", bias=True)
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return decoder("persimmon", config, size, attention, layers, norm, last="model.final_layernorm")
