"""BLOOM: ALiBi, a norm of embeddings, q, k and v fused head by head, an MLP without a gate (arXiv:2211.05100)."""

from dataclasses import replace
from functools import partial

from edgeq.models.alibi import slopes
from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import MOST_LAYERS, Dimensions, checked
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, fused_by_head, output
from edgeq.models.norms import LayerNorm
from edgeq.ops import NO_ROPE

OLDER = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "hidden_size": "n_embed"}


def compose(config: Config) -> Model:
    """Every matrix of a layer has a bias."""
    config.refuse(apply_residual_connection_post_layernorm=False)
    older = {key: config.get(name) for key, name in OLDER.items() if config.get(name) is not None}
    config = config.changed(**{key: value for key, value in older.items() if config.get(key) is None})
    n, count = config.integer("hidden_size", most=1 << 28), config.integer("n_head")
    layers, positions = config.integer("n_layer", most=MOST_LAYERS), config.integer("seq_length", 2048)
    size = Dimensions(n, 4 * n, layers, config.integer("vocab_size"), positions)
    heads = replace(checked(config, count, count, n // count), slopes=slopes(count))
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_epsilon", 1e-5))
    attention = Attention(
        fused_by_head(n, heads, "self_attention.query_key_value", bias=True),
        output(n, heads, True, "self_attention.dense"),
        heads,
        NO_ROPE,
    )
    mlp = plain(n, 4 * n, "gelu_tanh", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", bias=True)
    tied = config.flag("tie_word_embeddings", True)
    embedding, head = embedding_and_head(size, tied, "transformer.word_embeddings")
    return Model(
        "bloom",
        size,
        attention,
        Embedding(embedding, norm=norm("token_embd_norm", "transformer.word_embeddings_layernorm")),
        [Layer(pre_norms(norm), attention, mlp)] * layers,
        Head(norm("output_norm", "transformer.ln_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
    )
