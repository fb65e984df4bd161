"""DistilBERT: BERT without token types, under names of its own (arXiv:1910.01108)."""

from functools import partial

from edgeq.models.bert import encoder_heads, position_table
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import MOST_LAYERS, Dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """Every matrix has a bias."""
    config.refuse(sinusoidal_pos_embds=False, position_embedding_type="absolute")
    config.refuse(is_decoder=False, add_cross_attention=False)
    size = Dimensions(
        hidden_size=config.integer("dim"),
        intermediate_size=config.integer("hidden_dim"),
        num_hidden_layers=config.integer("n_layers", most=MOST_LAYERS),
        vocab_size=config.integer("vocab_size"),
        max_position_embeddings=config.integer("max_position_embeddings", 2048),
    )
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-12))
    heads = encoder_heads(config, config.integer("n_heads"), n)
    attention = Attention(
        separate(n, heads, True, "attention.{}_lin"), output(n, heads, True, "attention.out_lin"), heads, NO_ROPE
    )
    mlp = plain(n, m, config.activation("activation", "gelu"), "ffn.lin1", "ffn.lin2", bias=True)
    norms = NormedSums(norm("attn_output_norm", "sa_layer_norm"), norm("layer_output_norm", "output_layer_norm"))
    embedding = Embedding(
        Matrix("token_embd", "distilbert.embeddings.word_embeddings", size.vocab_size, n),
        positions=position_table("distilbert", size),
        norm=norm("token_embd_norm", "distilbert.embeddings.LayerNorm"),
    )
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        "distilbert",
        size,
        attention,
        embedding,
        layers,
        None,
        prefixes=("distilbert.", ""),
        layers_in="distilbert.transformer.layer.{}.",
    )
