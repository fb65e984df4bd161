"""Experts that are chosen by sigmoids (DeepSeek-V3, arXiv:2412.19437): a bias for choosing alone, the best groups
first, weights of the chosen normalized and scaled, MLPs for every token beside them."""

from edgeq.models.config import Config
from edgeq.models.feed_forward import (
    FeedForward,
    MixtureOfExperts,
    SharedMLP,
    gated,
    router,
    separate_experts,
)

LEAST = 1e-20  # added to the sum by which weights are normalized
MOST_GROUPS = 62
BIAS = "mlp.gate.e_score_correction_bias"
COUNTS = ("n_routed_experts", "num_local_experts", "num_experts")  # each may stand for the others
SHARED = ("n_shared_experts", "num_shared_experts")


def read_mixture(config: Config, n: int, normalized: bool = True, factor: float = 1.0, shared: int = 1) -> FeedForward:
    """Of a layer whose residual stream has `n` values; the rest is what leaving keys out means."""
    config.refuse(hidden_act="silu")
    key = next((name for name in COUNTS if config.get(name) is not None), COUNTS[0])
    count, top_k = config.integer(key, 128, most=4096), config.integer("num_experts_per_tok", 8)
    groups, top_groups = config.integer("n_group", 1), config.integer("topk_group", 1)
    if count % groups or top_groups > groups or groups > MOST_GROUPS or (groups > 1 and count < 2 * groups):
        raise config.malformed(f"{count} experts in {groups} groups of which {top_groups} count cannot be")
    if top_k > count // groups * top_groups:
        raise config.malformed(
            f"num_experts_per_tok is {top_k}, there are {count // groups * top_groups} to choose from"
        )
    m = config.integer("moe_intermediate_size")
    experts = MixtureOfExperts(
        router(n, count),
        separate_experts(n, m, count),
        count,
        top_k,
        config.flag("norm_topk_prob", normalized),
        config.number("routed_scaling_factor", factor),
        bias=BIAS,
        sigmoid=True,
        least=LEAST,
        groups=groups,
        top_groups=top_groups,
    )
    return with_shared(config, n, m, experts, shared)


def with_shared(config: Config, n: int, m: int, experts: MixtureOfExperts, usual: int) -> FeedForward:
    """With the MLPs for every token, as one of so many times `m` values in between."""
    key = next((name for name in SHARED if config.get(name) is not None), SHARED[0])
    if config.get(key, usual) == 0:
        return experts
    wide = m * config.integer(key, usual)
    return SharedMLP(experts, gated(n, wide, "silu", source="mlp.shared_experts.{}", suffix="_shexp"))


def dense_layers(config: Config, key: str, usual: int, layers: int) -> list[bool]:
    """Which layers have an MLP alone: the first `key`."""
    count = config.get(key, usual)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise config.malformed(f"{key} is {count!r}, a number of layers is needed")
    return [i < count for i in range(layers)]
