"""MPNet: RoBERTa without token types, whose attention adds to scores by the distance of two tokens
(arXiv:2004.09297)."""

from functools import partial

from edgeq.models.bert import encoder_heads
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.roberta import positions_after_padding
from edgeq.ops import NO_ROPE

BUCKETS = 32  # transformers computes with so many, whatever config.json says


def compose(config: Config) -> Model:
    """Every matrix has a bias; all layers add the same values by distance."""
    size, positions = positions_after_padding("mpnet", config, read_dimensions(config))
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-12))
    config.refuse(relative_attention_num_buckets=BUCKETS, is_decoder=False)
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    attention = Attention(
        separate(n, heads, True, "attention.attn.{}", ("q", "k", "v")),
        output(n, heads, True, "attention.attn.o"),
        heads,
        NO_ROPE,
        distances=("mpnet.encoder.relative_attention_bias.weight", BUCKETS),
    )
    mlp = plain(n, m, config.activation("hidden_act", "gelu"), "intermediate.dense", "output.dense", bias=True)
    norms = NormedSums(norm("attn_output_norm", "attention.LayerNorm"), norm("layer_output_norm", "output.LayerNorm"))
    embedding = Embedding(
        Matrix("token_embd", "mpnet.embeddings.word_embeddings", size.vocab_size, n),
        positions=positions,
        norm=norm("token_embd_norm", "mpnet.embeddings.LayerNorm"),
    )
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        "mpnet",
        size,
        attention,
        embedding,
        layers,
        None,
        prefixes=("mpnet.", ""),
        layers_in="mpnet.encoder.layer.{}.",
    )
