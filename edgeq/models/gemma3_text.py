"""Gemma 3's language model: Gemma 2 without caps, with normed queries and keys, and five local layers, which have a
rotary embedding of their own, to each global one (arXiv:2503.19786)."""

import math
from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.gemma import ACTIVATION
from edgeq.models.layers import BothNorms, Layer
from edgeq.models.mixers import Attention, head_norms, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import local_rope, rope
from edgeq.models.windows import by_layer

THETA = 1000000.0


def compose(config: Config) -> Model:
    """Every sixth layer is global. Caps are computed where a configuration has some. In EmbeddingGemma tokens see what
    follows them too, and nothing is written."""
    both_ways = config.flag("use_bidirectional_attention")
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    eps = config.number("rms_norm_eps", 1e-6)
    norm = partial(RMSNorm, width=n, eps=eps, add=1.0)
    heads = replace(
        read_heads(config, n, head_dim=256),
        scale=config.number("query_pre_attn_scalar", 256.0) ** -0.5,
        softcap=config.optional("attn_logit_softcapping"),
        causal=not both_ways,
    )
    pattern = config.integer("sliding_window_pattern", 6)
    windows = by_layer(config, [(i + 1) % pattern != 0 for i in range(size.num_hidden_layers)])
    if both_ways:  # of which the window is both sides together
        windows = [window and window // 2 + 1 for window in windows]
    theta = config.number("rope_local_base_freq", 10000.0)
    local, rotation = local_rope(config, heads.head_dim, theta), rope(config, heads.head_dim, theta=THETA)
    bias = config.flag("attention_bias")
    attention = Attention(
        separate(n, heads, bias), output(n, heads, bias), heads, rotation, head_norms(heads, eps, add=1.0)
    )
    mlp = gated(n, m, config.activation("hidden_activation", ACTIVATION), config.flag("mlp_bias"))
    norms = BothNorms(
        norm("attn_norm", "input_layernorm"),
        norm("post_attention_norm", "post_attention_layernorm"),
        norm("ffn_norm", "pre_feedforward_layernorm"),
        norm("post_ffw_norm", "post_feedforward_layernorm"),
    )
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    cap = config.optional("final_logit_softcapping")
    layers = [
        Layer(norms, attention._replace(rope=local if window else rotation).over(window), mlp) for window in windows
    ]
    return Model(
        "gemma3_text",
        size,
        attention,
        Embedding(embedding, factor=math.sqrt(n)),
        layers,
        Head(norm("output_norm", "model.norm"), head, cap=cap),
        settings={"rope_theta": THETA, "final_logit_softcapping": cap},
        bare=both_ways,
    )
