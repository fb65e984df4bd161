"""Granite 3: Llama with a factor on embeddings, scores, residuals and logits."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "logits_scaling")


def compose(config: Config) -> Model:
    """What is added to the residual stream is scaled, logits are divided."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    heads = replace(read_heads(config, n), scale=config.number("attention_multiplier", 1.0))
    embedded, added, divisor = (config.number(key, 1.0) for key in MULTIPLIERS)
    bias = config.flag("attention_bias")
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim))
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    norms = pre_norms(norm, mixed=added, fed=added)
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"))
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        "granite",
        size,
        attention,
        Embedding(embedding, factor=embedded),
        layers,
        Head(norm("output_norm", "model.norm"), head, factor=1.0 / divisor),
        settings={key: config.number(key, 1.0) for key in MULTIPLIERS},
    )
