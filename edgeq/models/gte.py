"""GTE of 2024, and Arctic Embed M 2: BERT with rotary embedding and gated MLPs (arXiv:2407.19669)."""

from dataclasses import replace
from functools import partial

from edgeq.models.bert import encoder_heads
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import Dimensions, read_dimensions
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, fused, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.tensors import Fused

THETA = 160000.0


def compose(config: Config) -> Model:
    """As transformers names its tensors, or as its makers did."""
    config.refuse(layer_norm_type="layer_norm", logn_attention_scale=False, position_embedding_type="rope")
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-12))
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    config.refuse(head_dim=heads.head_dim)
    rotation = whole_rope(config, heads.head_dim, theta=THETA)
    activation = config.activation("hidden_act", "gelu")
    down = Matrix("ffn_down", "mlp.down_proj", n, m, bias=True)
    up, gate = Matrix("ffn_up", "mlp.up_proj", m, n), Matrix("ffn_gate", "mlp.gate_proj", m, n)
    attention = Attention(separate(n, heads, True), output(n, heads, True), heads, rotation)
    norms = NormedSums(
        norm("attn_output_norm", "post_attention_layernorm"), norm("layer_output_norm", "post_mlp_layernorm")
    )
    newer = _model(config, size, norm, Layer(norms, attention, GatedMLP(gate, up, down, activation)), "layers.{}.")
    both = "mlp.up_gate_proj"
    up = up._replace(source=both, fused=Fused(2 * m))
    gate = gate._replace(source=both, fused=Fused(2 * m, first=m))
    attention = Attention(
        fused(n, heads, "attention.qkv_proj", True), output(n, heads, True, "attention.o_proj"), heads, rotation
    )
    norms = NormedSums(norm("attn_output_norm", "attn_ln"), norm("layer_output_norm", "mlp_ln"))
    older = Layer(norms, attention, GatedMLP(gate, up, down, activation))
    return replace(newer, instead=_model(config, size, norm, older, "encoder.layer.{}."))


def _model(config: Config, size: Dimensions, norm: "partial[LayerNorm]", layer: Layer, layers_in: str) -> Model:
    """Of layers that are alike. Some have no types of tokens."""
    assert isinstance(layer.mixer, Attention)
    n, types = size.hidden_size, config.get("type_vocab_size", 1)
    embedding = Embedding(
        Matrix("token_embd", "embeddings.word_embeddings", size.vocab_size, n),
        types=Matrix("token_types", "embeddings.token_type_embeddings", config.integer("type_vocab_size", 1), n)
        if types != 0
        else None,
        norm=norm("token_embd_norm", "embeddings.LayerNorm"),
    )
    return Model(
        "gte",
        size,
        layer.mixer,
        embedding,
        [layer] * size.num_hidden_layers,
        None,
        prefixes=("", "gte.", "new."),
        layers_in=layers_in,
        settings={"rope_theta": THETA},
    )
