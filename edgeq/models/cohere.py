"""Command R: attention and a gated MLP side by side on one LayerNorm without bias; neighbours are rotated, logits are
scaled."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, Parallel
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import whole_rope

THETA = 500000.0
SCALE = 0.0625


def compose(config: Config) -> Model:
    """Command R and Aya 23. Those of 104B norm each head with weights of its own, which is not computed."""
    config.refuse(use_qk_norm=False)
    size = read_dimensions(config)
    attention = read_attention(config, size.hidden_size, THETA)
    return parallel("cohere", config, size, attention, [attention] * size.num_hidden_layers, THETA)


def read_attention(config: Config, n: int, theta: float) -> Attention:
    """That of every layer."""
    heads, bias = read_heads(config, n), config.flag("attention_bias")
    rotation = replace(whole_rope(config, heads.head_dim, theta=theta), interleaved=True)
    return Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation)


def parallel(
    name: str, config: Config, size: Dimensions, attention: Attention, mixers: list[Attention], theta: float
) -> Model:
    """The model whose layers have these mixers; `theta` is the usual one of its rotary embedding."""
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-5), bias=False)
    mlp, norms = gated(n, m, config.activation("hidden_act", "silu")), Parallel(norm("attn_norm", "input_layernorm"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    scale = config.number("logit_scale", SCALE)
    layers = [Layer(norms, mixer, mlp) for mixer in mixers]
    return Model(
        name,
        size,
        attention,
        Embedding(embedding),
        layers,
        Head(norm("output_norm", "model.norm"), head, factor=scale),
        settings={"rope_theta": theta, "logit_scale": scale},
    )
