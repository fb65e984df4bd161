"""MiniCPM3: MiniCPM with latent attention, whose rotated parts turn in halves."""

from functools import partial
from math import sqrt

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.latent_attention import read_latent_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm

USUAL = {"q_lora_rank": 768, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32}


def compose(config: Config) -> Model:
    """A factor of null changes nothing; a value head has its share of the hidden size, unless it is said."""
    size = read_dimensions(config)
    n, layers = size.hidden_size, size.num_hidden_layers
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    share = n // config.integer("num_attention_heads")
    values = share if config.get("v_head_dim") is None else config.integer("v_head_dim")
    attention = read_latent_attention(config.usually(**USUAL).changed(v_head_dim=values), n, interleaved=False)
    mlp = gated(n, size.intermediate_size, config.activation("hidden_act", "silu"), config.flag("mlp_bias"))
    added = (config.optional("scale_depth", 1.4) or sqrt(layers)) / sqrt(layers)
    stack = [Layer(pre_norms(norm, added, added), attention, mlp)] * layers
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    base = config.integer("dim_model_base", 256) if config.get("dim_model_base", 256) is not None else n
    return Model(
        "minicpm3",
        size,
        attention,
        Embedding(embedding, factor=config.number("scale_emb", 12.0)),
        stack,
        Head(norm("output_norm", "model.norm"), head, factor=base / n),
    )
