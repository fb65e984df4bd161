"""Command A+ and North: Command R7B with experts after the first layers, and perhaps an MLP for every token."""

from functools import partial

from edgeq.models.cohere import SCALE, read_attention
from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import (
    FeedForward,
    MixtureOfExperts,
    SharedMLP,
    gated,
    read_experts,
    router,
    separate_experts,
)
from edgeq.models.layers import Layer, Parallel
from edgeq.models.mixers import Attention
from edgeq.models.norms import LayerNorm, NamedNorm, RMSNorm
from edgeq.models.windows import by_layer
from edgeq.ops import NO_ROPE

THETA = 10000.0


def compose(config: Config) -> Model:
    """Global layers have no rotary embedding, but for those without experts."""
    config = config.usually(head_dim=128)
    size = read_dimensions(config)
    n, count = size.hidden_size, size.num_hidden_layers
    norm, attention = read_norm(config, n), read_attention(config, n, THETA)
    dense = read_dense(config, count)
    ffns = read_ffns(config, n, size.intermediate_size, dense)
    layers = [
        Layer(Parallel(norm("attn_norm", "input_layernorm")), mixer, ffn)
        for mixer, ffn in zip(read_mixers(config, attention, dense), ffns, strict=True)
    ]
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True))
    scale = config.number("logit_scale", SCALE)
    return Model(
        "cohere2_moe",
        size,
        attention,
        Embedding(embedding),
        layers,
        Head(norm("output_norm", "model.norm"), head, factor=scale),
        settings={"rope_theta": THETA, "logit_scale": scale},
    )


def read_norm(config: Config, n: int) -> NamedNorm:
    """RMSNorm where its epsilon is given, LayerNorm without bias otherwise."""
    if config.get("rms_norm_eps") is not None:
        return partial(RMSNorm, width=n, eps=config.number("rms_norm_eps"))
    return partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-5), bias=False)


def read_first(config: Config, layers: int) -> int:
    """How many of the first layers are counted apart."""
    first = config.get("first_k_dense_replace") or 0
    if type(first) is not int or first < 0:
        raise config.malformed(f"first_k_dense_replace is {shown(first)}, a number of layers is needed")
    return min(first, layers)


def read_dense(config: Config, layers: int) -> list[bool]:
    """Which layers have no experts: as `mlp_layer_types` says, or so many of the first ones."""
    if config.get("mlp_layer_types") is not None:
        kinds = config.layer_types(layers, ("dense", "sparse"), config.get("mlp_layer_types"))
        return [kind == "dense" for kind in kinds]
    first = read_first(config, layers)
    return [i < first for i in range(layers)]


def read_mixers(config: Config, attention: Attention, dense: list[bool]) -> list[Attention]:
    """One of so many layers is global, counted anew from the first one with experts."""
    every, before = (
        config.integer("sliding_window_pattern", 4),
        config.integer("prefix_dense_sliding_window_pattern", 1),
    )
    first = read_first(config, len(dense))
    usual = [(i + 1) % before != 0 if i < first else (i - first + 1) % every != 0 for i in range(len(dense))]
    unturned = attention._replace(rope=NO_ROPE)
    return [
        attention.over(window) if window else attention if alone and before == 1 else unturned
        for window, alone in zip(by_layer(config, usual), dense, strict=True)
    ]


def read_ffns(config: Config, n: int, m: int, dense: list[bool]) -> list[FeedForward]:
    """That of each layer; the experts of the others have `m` values in between."""
    mlp: FeedForward | None = None
    if any(dense):
        wide = config.integer("prefix_dense_intermediate_size", m, most=1 << 28)
        mlp = gated(n, wide, config.activation("hidden_act", "silu"))
    sparse: FeedForward | None = None if all(dense) else read_mixture(config, n, m)
    found = [mlp if alone else sparse for alone in dense]
    return [ffn for ffn in found if ffn is not None]


def read_mixture(config: Config, n: int, m: int) -> FeedForward:
    """The softmax is of the chosen experts' scores alone. The sum with what every token reads may be halved."""
    count, top_k = read_experts(config, "num_experts", 8, 2)
    kind = config.get("expert_selection_fn", "softmax")
    if kind not in ("softmax", "sigmoid"):
        raise config.unsupported(f"expert_selection_fn {shown(kind)} is not supported; supported are softmax, sigmoid")
    normalized = kind == "softmax" or config.flag("norm_topk_prob", True)
    gate, matrices = router(n, count), separate_experts(n, m, count)
    experts = MixtureOfExperts(gate, matrices, count, top_k, normalized, sigmoid=kind == "sigmoid")
    if not config.get("num_shared_experts", 0):
        return experts
    how = config.get("shared_expert_combination_strategy", "average")
    if how not in ("average", "sum"):
        what = f"shared_expert_combination_strategy {shown(how)}"
        raise config.unsupported(f"{what} is not supported; supported are average, sum")
    part = 0.5 if how == "average" else 1.0
    shared = gated(n, m * config.integer("num_shared_experts"), "silu", source="mlp.shared_experts.{}", suffix="_shexp")
    return SharedMLP(experts._replace(factor=part), shared, part)
