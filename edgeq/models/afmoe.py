"""AFMoE (Trinity): norms before and after both, normed heads, what they give gated; global layers have no rotary
embedding; experts after the first layers."""

import math
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import FeedForward, MixtureOfExperts, gated, read_experts, router, separate_experts
from edgeq.models.layers import BothNorms, Layer
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, head_norms, output, query_width, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.sigmoid_mixture import LEAST, dense_layers, with_shared
from edgeq.models.windows import by_layer
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """Every fourth layer is global."""
    size = read_dimensions(config)
    n, eps, count = size.hidden_size, config.number("rms_norm_eps", 1e-5), size.num_hidden_layers
    norm, heads, bias = partial(RMSNorm, width=n, eps=eps), read_heads(config, n, 128), config.flag("attention_bias")
    rotation = rope(config, heads.head_dim)
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rotation,
        head_norms(heads, eps),
        gate=Matrix("attn_gate", "self_attn.gate_proj", query_width(heads), n),
    )
    mlp, experts = gated(n, size.intermediate_size, "silu"), read_mixture(config, n)
    every = config.integer("global_attn_every_n_layers", 4)
    windows = by_layer(config.usually(sliding_window=1024), [(i + 1) % every != 0 for i in range(count)])
    norms = BothNorms(
        norm("attn_norm", "input_layernorm"),
        norm("post_attention_norm", "post_attention_layernorm"),
        norm("ffn_norm", "pre_mlp_layernorm"),
        norm("post_ffw_norm", "post_mlp_layernorm"),
    )
    layers = [
        Layer(norms, attention.over(window)._replace(rope=rotation if window else NO_ROPE), mlp if dense else experts)
        for window, dense in zip(windows, dense_layers(config, "num_dense_layers", 1, count), strict=True)
    ]
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"))
    factor = math.sqrt(n) if config.flag("mup_enabled") else None
    last = Head(norm("output_norm", "model.norm"), head)
    return Model("afmoe", size, attention, Embedding(embedding, factor=factor), layers, last)


def read_mixture(config: Config, n: int) -> FeedForward:
    """The experts of a layer whose residual stream has `n` values, and the MLPs for every token."""
    count, top_k = read_experts(config, "num_experts", 64, 6)
    m = config.integer("moe_intermediate_size", 1408)
    experts = MixtureOfExperts(
        router(n, count, "mlp.router.gate", ""),
        separate_experts(n, m, count),
        count,
        top_k,
        True,
        config.number("route_scale", 1.0),
        bias="mlp.expert_bias",
        sigmoid=True,
        least=LEAST,
    )
    return with_shared(config, n, m, experts, 2)
