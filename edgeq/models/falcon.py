"""Falcon: LayerNorm, fused q, k and v, attention and an MLP without a gate side by side (arXiv:2311.16867)."""

from dataclasses import replace
from functools import partial

from edgeq.models.alibi import slopes
from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked, read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, Norms, Parallel, PreNorms, pre_norms
from edgeq.models.mixers import Attention, fused_by_head, output
from edgeq.models.norms import LayerNorm, NamedNorm
from edgeq.models.rope_scaling import rope
from edgeq.ops import NO_ROPE, Heads


def compose(config: Config) -> Model:
    """Falcon 7B (one key/value head), 11B and 40B (the newer layout), and RW, which has ALiBi in place of a rotary
    embedding. What that takes off is scaled as the scores are. transformers rounds it to bfloat16, which far from a
    text's beginning is not the same."""
    wide = config.integer("ffn_hidden_size", 4 * config.integer("hidden_size", most=1 << 28))
    size = read_dimensions(config.changed(intermediate_size=wide))
    n, bias, newer = size.hidden_size, config.flag("bias"), config.flag("new_decoder_architecture")
    eps, activation = config.number("layer_norm_epsilon", 1e-5), config.activation("activation", "gelu")
    norm, heads = partial(LayerNorm, width=n, eps=eps), read_falcon_heads(config, n, newer)
    attention = Attention(
        fused_by_head(n, heads, "self_attention.query_key_value", bias),
        output(n, heads, bias, "self_attention.dense"),
        heads,
        NO_ROPE if heads.slopes else rope(config, heads.head_dim),
    )
    mlp = plain(n, wide, activation, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", bias)
    tied = config.flag("tie_word_embeddings", True)
    embedding, head = embedding_and_head(size, tied, "transformer.word_embeddings")
    layers = [Layer(read_norms(config, norm, newer), attention, mlp)] * size.num_hidden_layers
    return Model(
        "falcon",
        size,
        attention,
        Embedding(embedding),
        layers,
        Head(norm("output_norm", "transformer.ln_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
    )


def read_falcon_heads(config: Config, n: int, newer: bool) -> Heads:
    """The older layout has one key/value head, or as many as query heads."""
    heads = config.integer("num_attention_heads")
    if newer:
        kv_heads = config.integer("num_kv_heads", heads)
    else:
        kv_heads = 1 if config.flag("multi_query", True) else heads
    shape = checked(config, heads, kv_heads, n // heads)
    if not config.flag("alibi"):
        return shape
    return replace(shape, slopes=tuple(slope * shape.head_dim**-0.5 for slope in slopes(heads)))


def read_norms(config: Config, norm: NamedNorm, newer: bool) -> Norms:
    """Attention and MLP read the residual stream through one norm, or through one each, or one after the other."""
    if newer:
        config.refuse(parallel_attn=True)
    parallel = config.flag("parallel_attn", True)
    if newer and config.get("num_ln_in_parallel_attn") in (None, 2):
        return (Parallel if parallel else PreNorms)(norm("attn_norm", "ln_attn"), norm("ffn_norm", "ln_mlp"))
    return Parallel(norm("attn_norm", "input_layernorm")) if parallel else pre_norms(norm)
