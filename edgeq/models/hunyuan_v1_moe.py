"""Hunyuan's mixture of experts (Hunyuan-A13B): its dense models with experts, and an MLP for every token, in all
layers."""

from functools import partial

from edgeq.models.composition import Model, decoder
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
from edgeq.models.hunyuan_v1_dense import read_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm


def compose(config: Config) -> Model:
    """Layers may need different numbers of experts per token."""
    size = read_dimensions(config)
    n, eps = size.hidden_size, config.number("rms_norm_eps", 1e-5)
    norm, attention = partial(RMSNorm, width=n, eps=eps), read_attention(config, n, eps)
    ffns = [read_mixture(config, n, size.intermediate_size, i) for i in range(size.num_hidden_layers)]
    layers = [Layer(pre_norms(norm), attention, ffn) for ffn in ffns]
    settings = {"num_experts": read_experts(config.changed(num_experts_per_tok=1), "num_experts", 1, 1)[0]}
    return decoder("hunyuan_v1_moe", config, size, attention, layers, norm, settings=settings)


def read_mixture(config: Config, n: int, m: int, layer: int) -> FeedForward:
    """That of one layer whose residual stream has `n` values; experts, and what is for every token, have `m`."""
    config.refuse(use_cla=False, moe_layer_num_skipped=0, norm_topk_prob=True)
    for key, usual in (("moe_intermediate_size", m), ("num_shared_expert", 1)):
        if of_layer(config, key, layer, usual) != usual:
            raise config.unsupported(f"{key} is {shown(config.get(key))}, supported is {usual}")
    top = next((key for key in ("moe_topk", "num_experts_per_tok") if config.get(key) is not None), "moe_topk")
    each = config.changed(num_experts_per_tok=of_layer(config, top, layer, 1))
    count, top_k = read_experts(each, "num_experts", 1, 1)
    matrices = separate_experts(n, m, count)
    experts = MixtureOfExperts(router(n, count, "mlp.gate.wg", "mlp.gate.wg"), matrices, count, top_k, normalized=True)
    return SharedMLP(experts, gated(n, m, "silu", source="mlp.shared_mlp.{}", suffix="_shexp"))


def of_layer(config: Config, key: str, layer: int, usual: int) -> int:
    """A number that may be a list of one for each layer."""
    given = config.get(key)
    if isinstance(given, list):
        if layer >= len(given):
            raise config.malformed(f"{key} is {shown(given)}, a number for each layer is needed")
        config = config.changed(**{key: given[layer]})
    return config.integer(key, usual, most=1 << 28)
