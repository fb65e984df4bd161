"""Ling 2.0 and Ring 2.0: pre-norm, normed heads of which half is rotated, experts in groups after the first layers.

The checkpoints' own code is the source (modeling_bailing_moe_v2.py of inclusionAI/Ling-V2): transformers has none.
"""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import gated, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, fused, head_norms, output
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.sigmoid_mixture import dense_layers, read_router, with_shared

NAME = "bailing_moe_v2"
THETA = 600000.0


def compose(config: Config) -> Model:
    """Layers that guess further tokens stay unused."""
    config.refuse(hidden_act="silu", score_function="sigmoid", moe_router_enable_expert_bias=True)
    size = read_dimensions(config.usually(max_position_embeddings=32768))
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-6)
    norm, heads = partial(RMSNorm, width=n, eps=eps), read_heads(config, n)
    norms = head_norms(heads, eps, sources=("attention.query_layernorm", "attention.key_layernorm"))
    attention = Attention(
        fused(n, heads, "attention.query_key_value", config.flag("use_qkv_bias")),
        output(n, heads, config.flag("use_bias"), "attention.dense"),
        heads,
        rope(config, heads.head_dim, partial=0.5, theta=THETA),
        norms if config.flag("use_qk_norm", True) else None,
    )
    m, count = config.integer("moe_intermediate_size", 512), config.integer("num_experts", 256, most=4096)
    experts = read_router(
        config.usually(n_group=8, topk_group=4).changed(norm_topk_prob=config.integer("num_experts_per_tok", 8) > 1),
        n,
        separate_experts(n, m, count),
    )
    mixture = with_shared(config, n, m, experts._replace(bias="mlp.gate.expert_bias"), 1)
    mlp = gated(n, size.intermediate_size, "silu")
    dense = dense_layers(config, "first_k_dense_replace", 1, size.num_hidden_layers)
    layers = [Layer(pre_norms(norm), attention, mlp if here else mixture) for here in dense]
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"), "model.word_embeddings")
    last = Head(norm("output_norm", "model.norm"), head)
    return Model(NAME, size, attention, Embedding(embedding), layers, last, settings={"rope_theta": THETA})
