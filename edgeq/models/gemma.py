"""Gemma: Llama with scaled embeddings, norms that multiply by 1 + weight, and a GELU gate (arXiv:2403.08295)."""

import math
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

ACTIVATION = "gelu_pytorch_tanh"  # its hidden_act says gelu, and the tanh form was trained


def compose(config: Config) -> Model:
    """Embeddings are scaled by sqrt(hidden_size). Attention is always causal here."""
    config.refuse(use_bidirectional_attention=False)
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6), add=1.0)
    heads, bias = read_heads(config, n, head_dim=256), config.flag("attention_bias")
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim))
    mlp = gated(n, m, config.activation("hidden_activation", ACTIVATION), config.flag("mlp_bias"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    layers = [Layer(pre_norms(norm), attention, mlp)] * size.num_hidden_layers
    return Model(
        "gemma",
        size,
        attention,
        Embedding(embedding, factor=math.sqrt(n)),
        layers,
        Head(norm("output_norm", "model.norm"), head),
    )
