"""Jina's third embedding models: XLM-RoBERTa with rotary embedding in place of positions (arXiv:2409.10173)."""

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
from edgeq.models.rope_scaling import whole_rope

THETA = 20000.0


def compose(config: Config) -> Model:
    """Norms come after each sum; every matrix has a bias."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-5))
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    config.refuse(head_dim=heads.head_dim)
    rotation = whole_rope(config, heads.head_dim, theta=THETA)
    attention = Attention(separate(n, heads, True), output(n, heads, True), heads, rotation)
    mlp = plain(n, m, config.activation("hidden_act", "gelu"), "mlp.fc1", "mlp.fc2", bias=True)
    norms = NormedSums(
        norm("attn_output_norm", "post_attention_layernorm"), norm("layer_output_norm", "post_mlp_layernorm")
    )
    types = config.integer("type_vocab_size", 1)
    embedding = Embedding(
        Matrix("token_embd", "embeddings.word_embeddings", size.vocab_size, n),
        types=Matrix("token_types", "embeddings.token_type_embeddings", types, n),
        norm=norm("token_embd_norm", "embeddings.LayerNorm"),
    )
    return Model(
        "jina_embeddings_v3",
        size,
        attention,
        embedding,
        [Layer(norms, attention, mlp)] * size.num_hidden_layers,
        None,
        prefixes=("", "roberta."),
        layers_in="layers.{}.",
        settings={"rope_theta": THETA},
    )
