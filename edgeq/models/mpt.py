"""MPT: ALiBi, norms and matrices without biases, q, k and v one after the other, at times held within a limit."""

from dataclasses import replace
from functools import partial

from edgeq.models.alibi import slopes
from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import MOST_LAYERS, Dimensions, checked
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.mixers import Attention, fused, output
from edgeq.models.norms import LayerNorm
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """What the code of MosaicML's checkpoints knows beside this is refused."""
    config.refuse(no_bias=True, logit_scale=None, norm_type="low_precision_layernorm")
    given = config.get("attn_config") or {}
    if not isinstance(given, dict):
        raise config.malformed("attn_config is no object")
    own = config.within(given)
    own.refuse(attn_type="multihead_attention", prefix_lm=False, qk_ln=False, alibi=True)
    n, count = config.integer("d_model", most=1 << 28), config.integer("n_heads")
    wide = config.integer("expansion_ratio", 4, most=1024) * n
    layers, positions = config.integer("n_layers", most=MOST_LAYERS), config.integer("max_seq_len", 2048)
    size = Dimensions(n, wide, layers, config.integer("vocab_size"), positions)
    heads = replace(
        checked(config, count, count, n // count),
        slopes=slopes(count, own.number("alibi_bias_max", 8)),
        scale=own.optional("softmax_scale") or None,
    )
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_epsilon", 1e-5), bias=False)
    qkv, back = fused(n, heads, "attn.Wqkv"), output(n, heads, source="attn.out_proj")
    attention = Attention(qkv, back, heads, NO_ROPE, clip=own.optional("clip_qkv"))
    mlp = plain(n, wide, "gelu", "ffn.up_proj", "ffn.down_proj")
    norms = PreNorms(norm("attn_norm", "norm_1"), norm("ffn_norm", "norm_2"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True), "transformer.wte")
    return Model(
        "mpt",
        size,
        attention,
        Embedding(embedding),
        [Layer(norms, attention, mlp)] * layers,
        Head(norm("output_norm", "transformer.norm_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.blocks.{}.",
    )
