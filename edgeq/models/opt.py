"""OPT: GPT-2 whose checkpoints keep q, k and v apart, with positions counted from 2 (arXiv:2205.01068)."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked, read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.tensors import Fused
from edgeq.ops import NO_ROPE

FIRST = 2  # row of the first position's embedding


def compose(config: Config) -> Model:
    """The model of 350M, which norms after its sums and embeds in fewer values, is not computed."""
    config.refuse(do_layer_norm_before=True, _remove_final_layer_norm=False, layer_norm_elementwise_affine=True)
    config = config.changed(intermediate_size=config.get("ffn_dim", 3072))
    size = read_dimensions(config)
    n, m, bias = size.hidden_size, size.intermediate_size, config.flag("enable_bias", True)
    config.refuse(word_embed_proj_dim=n)
    norm, count = partial(LayerNorm, width=n, eps=1e-5), config.integer("num_attention_heads")
    heads = checked(config, count, count, n // count)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias, "self_attn.out_proj"), heads, NO_ROPE)
    mlp = plain(n, m, config.activation("activation_function", "relu"), "fc1", "fc2", bias)
    norms = PreNorms(norm("attn_norm", "self_attn_layer_norm"), norm("ffn_norm", "final_layer_norm"))
    tied = config.flag("tie_word_embeddings", True)
    embedding, head = embedding_and_head(size, tied, "model.decoder.embed_tokens")
    rows = size.max_position_embeddings
    lies = Fused(rows + FIRST, first=FIRST)
    positions = Matrix("position_embd", "model.decoder.embed_positions", rows, n, fused=lies)
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        "opt",
        size,
        attention,
        Embedding(embedding, positions=positions),
        layers,
        Head(norm("output_norm", "model.decoder.final_layer_norm"), head),
        prefixes=("model.decoder.", "decoder.", ""),
        layers_in="model.decoder.layers.{}.",
    )
