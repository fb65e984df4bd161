"""Jina's third embedding models: XLM-RoBERTa with rotary embedding in place of positions (arXiv:2409.10173)."""

from dataclasses import replace
from functools import partial

from edgeq.models.bert import encoder_heads
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, fused, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import whole_rope

THETA = 20000.0


def compose(config: Config) -> Model:
    """Norms come after each sum; every matrix has a bias. Tensors are named as transformers has them, or as it writes
    them, which is what its makers call them."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-5))
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    config.refuse(head_dim=heads.head_dim)
    rotation = whole_rope(config, heads.head_dim, theta=THETA)
    mlp = plain(n, m, config.activation("hidden_act", "gelu"), "mlp.fc1", "mlp.fc2", bias=True)
    types = Matrix("token_types", "embeddings.token_type_embeddings", config.integer("type_vocab_size", 1), n)
    norms = NormedSums(
        norm("attn_output_norm", "post_attention_layernorm"), norm("layer_output_norm", "post_mlp_layernorm")
    )
    attention = Attention(separate(n, heads, True), output(n, heads, True), heads, rotation)
    first = norm("token_embd_norm", "embeddings.LayerNorm")
    model = _model(size, types, first, Layer(norms, attention, mlp), "layers.{}.")
    norms = NormedSums(norm("attn_output_norm", "norm1"), norm("layer_output_norm", "norm2"))
    attention = attention._replace(
        qkv=fused(n, heads, "mixer.Wqkv", True), output=output(n, heads, True, "mixer.out_proj")
    )
    first = norm("token_embd_norm", "emb_ln")
    written = _model(size, types, first, Layer(norms, attention, mlp), "encoder.layers.{}.")
    return replace(model, instead=written)


def _model(size: Dimensions, types: Matrix, norm: LayerNorm, layer: Layer, layers_in: str) -> Model:
    """Of layers that are alike."""
    assert isinstance(layer.mixer, Attention)
    word = Matrix("token_embd", "embeddings.word_embeddings", size.vocab_size, size.hidden_size)
    return Model(
        "jina_embeddings_v3",
        size,
        layer.mixer,
        Embedding(word, types=types, norm=norm),
        [layer] * size.num_hidden_layers,
        None,
        prefixes=("", "roberta."),
        layers_in=layers_in,
        settings={"rope_theta": THETA},
    )
