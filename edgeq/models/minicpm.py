"""MiniCPM: Llama with a factor on embeddings, residuals and logits, said in its own way (arXiv:2404.06395)."""

from dataclasses import replace
from math import sqrt

from edgeq.models import granite
from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads


def compose(config: Config) -> Model:
    """MiniCPM 1, 2 and 4: Granite's factors. What attends sparsely in long texts attends to all of them."""
    if config.get("num_experts"):
        raise config.unsupported("MiniCPM's mixtures of experts are not supported")
    size = read_dimensions(config)
    n, layers = size.hidden_size, size.num_hidden_layers
    factors = {
        "embedding_multiplier": config.number("scale_emb", 1.0),
        "residual_multiplier": config.number("scale_depth", 1.0) / sqrt(layers),
        "logits_scaling": n / config.integer("dim_model_base", 1),
        "attention_multiplier": read_heads(config, n).head_dim ** -0.5,
    }
    usual = config.usually(tie_word_embeddings=True, rms_norm_eps=1e-5)
    return replace(granite.compose(usual.changed(**factors)), name="minicpm", settings=factors)
