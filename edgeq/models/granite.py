"""Granite 3: Llama with a factor on embeddings, scores, residuals and logits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, read_dimensions, read_heads
from edgeq.models.feed_forward import gated
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import NamedNorm, RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.ops import Rope

MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "logits_scaling")


def compose(config: Config) -> Model:
    """What is added to the residual stream is scaled, logits are divided."""
    size = read_dimensions(config)
    n, m, added = size.hidden_size, size.intermediate_size, read_added(config)
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    attention = read_attention(config, n)
    mlp = gated(n, m, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    layers = [Layer(pre_norms(norm, mixed=added, fed=added), attention, mlp)] * size.num_hidden_layers
    return granite("granite", config, size, attention, layers, norm)


def read_added(config: Config) -> float:
    """What multiplies all that is added to the residual stream."""
    return config.number("residual_multiplier", 1.0)


def read_attention(config: Config, n: int, rotation: Rope | None = None) -> Attention:
    """That of all layers; `rotation` instead of what the configuration says."""
    heads = replace(read_heads(config, n), scale=config.number("attention_multiplier", 1.0))
    bias = config.flag("attention_bias")
    turned = rope(config, heads.head_dim) if rotation is None else rotation
    return Attention(separate(n, heads, bias), output(n, heads, bias), heads, turned)


def granite(
    name: str,
    config: Config,
    size: Dimensions,
    attention: Attention,
    layers: Sequence[Layer],
    norm: NamedNorm,
    *,
    tied: bool = False,
    settings: Mapping[str, float] | None = None,
) -> Model:
    """The model of these layers; `tied` is what leaving out tie_word_embeddings means."""
    embedded, _, divisor = (config.number(key, 1.0) for key in MULTIPLIERS)
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", tied))
    return Model(
        name,
        size,
        attention,
        Embedding(embedding, factor=embedded),
        layers,
        Head(norm("output_norm", "model.norm"), head, factor=1.0 / divisor),
        settings={key: config.number(key, 1.0) for key in MULTIPLIERS} | (dict(settings) if settings else {}),
    )
