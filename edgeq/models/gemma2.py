"""Gemma 2: norms after attention and MLP as well, capped logits, every other layer local (arXiv:2408.00118)."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.gemma import ACTIVATION
from edgeq.models.layers import BothNorms, Layer, Norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.windows import by_layer

Named = Callable[[str, str], RMSNorm]


def compose(config: Config) -> Model:
    """Norms before and after both."""
    return layered("gemma2", config, read_norms)


def read_norms(norm: Named) -> BothNorms:
    """`norm` makes one of its names here and there."""
    return BothNorms(
        norm("attn_norm", "input_layernorm"),
        norm("post_attention_norm", "post_attention_layernorm"),
        norm("ffn_norm", "pre_feedforward_layernorm"),
        norm("post_ffw_norm", "post_feedforward_layernorm"),
    )


def layered(name: str, config: Config, norms_of: Callable[[Named], Norms]) -> Model:
    """Scores are scaled by a number of their own, and capped; the first, third, ... layer is local."""
    config.refuse(use_bidirectional_attention=False)
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6), add=1.0)
    heads = replace(
        read_heads(config, n, head_dim=256),
        scale=config.number("query_pre_attn_scalar", 256.0) ** -0.5,
        softcap=config.optional("attn_logit_softcapping", 50.0),
    )
    windows = by_layer(config, [i % 2 == 0 for i in range(size.num_hidden_layers)])
    cap = config.optional("final_logit_softcapping", 30.0)
    bias = config.flag("attention_bias")
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, whole_rope(config, heads.head_dim))
    mlp = gated(n, m, config.activation("hidden_activation", ACTIVATION), config.flag("mlp_bias"))
    norms = norms_of(norm)
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    layers = [Layer(norms, attention.over(window), mlp) for window in windows]
    return Model(
        name,
        size,
        attention,
        Embedding(embedding, factor=math.sqrt(n)),
        layers,
        Head(norm("output_norm", "model.norm"), head, cap=cap),
        settings={"final_logit_softcapping": cap},
    )
