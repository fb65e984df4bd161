"""ERNIE 4.5's mixtures of experts: most layers have experts, chosen with a bias, beside an MLP for every token."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import FeedForward, MixtureOfExperts, SharedMLP, gated, router, separate_experts
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope

THETA = 500000.0


def compose(config: Config) -> Model:
    """Biases of matrices are everywhere or nowhere, those of experts are nowhere."""
    config.refuse(hidden_act="silu")
    size = read_dimensions(config)
    n, m, count = size.hidden_size, size.intermediate_size, size.num_hidden_layers
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads, bias = read_heads(config, n), config.flag("use_bias")
    rotation = replace(rope(config, heads.head_dim, theta=THETA), interleaved=True)
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rotation)
    mlp, experts = gated(n, m, "silu", bias), read_mixture(config, n, bias)
    layers = [Layer(pre_norms(norm), attention, experts if here else mlp) for here in sparse(config, count)]
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True), bias=bias)
    last = Head(norm("output_norm", "model.norm"), head)
    settings = {"rope_theta": THETA}
    return Model("ernie4_5_moe", size, attention, Embedding(embedding), layers, last, settings=settings)


def read_mixture(config: Config, n: int, bias: bool) -> FeedForward:
    """The experts of a layer whose residual stream has `n` values, and the MLPs for every token, as one."""
    count, top_k = config.integer("moe_num_experts", 64, most=4096), config.integer("moe_k", 6)
    if top_k > count:
        raise config.malformed(f"moe_k is {top_k}, there are {count} experts")
    m, shared = config.integer("moe_intermediate_size", 1536), config.get("moe_num_shared_experts", 2)
    favour = "mlp.moe_statics.e_score_correction_bias"
    matrices = separate_experts(n, m, count)
    experts = MixtureOfExperts(router(n, count), matrices, count, top_k, normalized=True, bias=favour, bias_row=True)
    if shared == 0:
        return experts
    wide = m * config.integer("moe_num_shared_experts", 2)
    return SharedMLP(experts, gated(n, wide, "silu", bias, "mlp.shared_experts.{}", suffix="_shexp"))


def sparse(config: Config, layers: int) -> list[bool]:
    """Which layers have experts."""
    step, first, last = (config.get(f"moe_layer_{name}") for name in ("interval", "start_index", "end_index"))
    step, first, last = 1 if step is None else step, 1 if first is None else first, -1 if last is None else last
    if not all(isinstance(number, int) for number in (step, first, last)) or step < 1:
        raise config.malformed(f"moe_layer_interval, start and end are {step}, {first}, {last}: integers are needed")
    last = layers - 1 if last == -1 else last
    return [(i + 1) % step == 0 and first <= i <= last for i in range(layers)]
