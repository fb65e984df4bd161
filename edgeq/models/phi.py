"""Phi-1, Phi-1.5 and Phi-2: attention and an MLP without a gate side by side on one LayerNorm (arXiv:2306.11644)."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, Parallel
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import rope


def compose(config: Config) -> Model:
    """Every matrix has a bias, the head too. No released model norms its heads."""
    config.refuse(qk_layernorm=False)
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-5))
    heads = read_heads(config, n)
    attention = Attention(
        separate(n, heads, bias=True),
        output(n, heads, bias=True, source="self_attn.dense"),
        heads,
        rope(config, heads.head_dim, partial=0.5),
    )
    mlp = plain(n, m, config.activation("hidden_act", "gelu_new"), "mlp.fc1", "mlp.fc2", bias=True)
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"), bias=True)
    layers = [Layer(Parallel(norm("attn_norm", "input_layernorm")), attention, mlp)] * size.num_hidden_layers
    return Model(
        "phi", size, attention, Embedding(embedding), layers, Head(norm("output_norm", "model.final_layernorm"), head)
    )
