"""EmbeddingGemma 2's language model: Gemma 4 whose tokens see all of their text, whose values of every layer are made
of a token's embedding alone, and whose last states are projected."""

import math
from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.gemma import ACTIVATION
from edgeq.models.gemma4_text import GLOBAL_HEAD, THETA, read_attention
from edgeq.models.layers import BothNorms, Layer
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention
from edgeq.models.norms import Projected, RMSNorm
from edgeq.models.per_layer import LayerEnd, PerLayerEmbedding
from edgeq.models.windows import Windows, by_layer

WIDTH = 512  # of a layer's values


def compose(config: Config) -> Model:
    """`sliding_window` is how far a token sees to either side. Every sixth layer is global, and the last one is."""
    size = read_dimensions(config.usually(max_position_embeddings=262144))
    n, layers = size.hidden_size, size.num_hidden_layers
    eps, activation = config.number("rms_norm_eps", 1e-6), config.activation("hidden_activation", ACTIVATION)
    norm = partial(RMSNorm, width=n, eps=eps)
    every = config.integer("sliding_window_pattern", 6)
    reach = config.integer("sliding_window", WIDTH)
    windows = by_layer(config.changed(sliding_window=reach + 1), [(i + 1) % every != 0 for i in range(layers)])
    windows[-1] = None
    config = with_heads(config.usually(num_attention_heads=4, num_key_value_heads=2), windows)
    norms = BothNorms(
        norm("attn_norm", "input_layernorm"),
        norm("post_attention_norm", "post_attention_layernorm"),
        norm("ffn_norm", "pre_feedforward_layernorm"),
        norm("post_ffw_norm", "post_feedforward_layernorm"),
    )
    mlp = gated(n, size.intermediate_size, activation)
    attentions = [both_ways(read_attention(config, size, i, windows, None, eps)) for i in range(layers)]
    width, rows = config.integer("hidden_size_per_layer_input", WIDTH), config.integer("embedding_dim", 768)
    if width % 32:
        raise config.unsupported(f"hidden_size_per_layer_input is {width}, a multiple of 32 is needed")
    values = PerLayerEmbedding(0, width, layers, n, activation, eps, "model.ple.", "ple_block.")
    last = Projected(norm("output_norm", "model.norm"), Matrix("embd_proj", "model.embedding_projection", rows, n))
    return Model(
        "embedding_gemma2_text",
        size,
        attentions[-1],
        Embedding(Matrix("token_embd", "model.embed_tokens", size.vocab_size, n), factor=math.sqrt(n)),
        [Layer(norms, attention, mlp) for attention in attentions],
        None,
        around=LayerEnd(values),
        last=last,
        settings={"rope_theta": THETA},
    )


def both_ways(attention: Attention) -> Attention:
    """The same, of tokens that see those after them, too."""
    return attention._replace(heads=replace(attention.heads, causal=False))


def with_heads(config: Config, windows: Windows) -> Config:
    """With `per_layer_config`, which says how global layers differ."""
    if config.get("per_layer_config") is not None:
        return config
    size, count = config.get("global_head_dim", GLOBAL_HEAD), config.get("num_global_key_value_heads", 1)
    own = {"head_dim": size, "num_key_value_heads": count}
    return config.changed(per_layer_config={str(i): own for i, window in enumerate(windows) if window is None})
