"""BioGPT: OPT with scaled embeddings and GELU (doi:10.1093/bib/bbac409)."""

import math
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked, read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.opt import FIRST
from edgeq.models.tensors import Fused
from edgeq.ops import NO_ROPE

EPS = 1e-5  # of norms, whatever layer_norm_eps says, as in transformers


def compose(config: Config) -> Model:
    """Every matrix of a layer has a bias."""
    config = config.usually(intermediate_size=4096, max_position_embeddings=1024)
    size, count = read_dimensions(config), config.integer("num_attention_heads", 16)
    n, norm = size.hidden_size, partial(LayerNorm, width=size.hidden_size, eps=EPS)
    heads = checked(config, count, count, n // count)
    attention = Attention(separate(n, heads, True), output(n, heads, True, "self_attn.out_proj"), heads, NO_ROPE)
    mlp = plain(n, size.intermediate_size, config.activation("hidden_act", "gelu"), "fc1", "fc2", True)
    norms = PreNorms(norm("attn_norm", "self_attn_layer_norm"), norm("ffn_norm", "final_layer_norm"))
    tied = config.flag("tie_word_embeddings", True)
    embedding, head = embedding_and_head(size, tied, "biogpt.embed_tokens", "output_projection")
    rows = size.max_position_embeddings
    lies = Fused(rows + FIRST, first=FIRST)
    positions = Matrix("position_embd", "biogpt.embed_positions", rows, n, fused=lies)
    factor = math.sqrt(n) if config.flag("scale_embedding", True) else None
    return Model(
        "biogpt",
        size,
        attention,
        Embedding(embedding, factor, positions),
        [Layer(norms, attention, mlp)] * size.num_hidden_layers,
        Head(norm("output_norm", "biogpt.layer_norm"), head),
        prefixes=("biogpt.", ""),
        layers_in="biogpt.layers.{}.",
    )
