"""GPT, the first: GPT-2 that norms each sum in place of what reads it, and nothing at the end."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked
from edgeq.models.feed_forward import plain
from edgeq.models.gpt2 import read_gpt_dimensions
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, fused
from edgeq.models.norms import LayerNorm, NoNorm
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """Every matrix has a bias; positions are embedded like tokens. Its GELU is always the one by tanh."""
    size = read_gpt_dimensions(config.usually(n_positions=512).changed(n_inner=None))
    n, count = size.hidden_size, config.integer("n_head", 12)
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_epsilon", 1e-5))
    heads = checked(config, count, count, n // count)
    output = Matrix("attn_output", "attn.c_proj", n, n, bias=True, transposed=True)
    attention = Attention(fused(n, heads, "attn.c_attn", bias=True, transposed=True), output, heads, NO_ROPE)
    kind = config.activation("afn", "gelu")
    kind = "gelu_tanh" if kind == "gelu" else kind
    mlp = plain(n, size.intermediate_size, kind, "mlp.c_fc", "mlp.c_proj", bias=True, transposed=True)
    norms = NormedSums(norm("attn_output_norm", "ln_1"), norm("layer_output_norm", "ln_2"))
    tied = config.flag("tie_word_embeddings", True)
    embedding, head = embedding_and_head(size, tied, "transformer.tokens_embed")
    positions = Matrix("position_embd", "transformer.positions_embed", size.max_position_embeddings, n)
    return Model(
        "openai-gpt",
        size,
        attention,
        Embedding(embedding, positions=positions),
        [Layer(norms, attention, mlp)] * size.num_hidden_layers,
        Head(NoNorm(), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
    )
