"""Experts that are chosen by sigmoids (DeepSeek-V3, arXiv:2412.19437): a bias for choosing alone, the best groups
first, weights of the chosen normalized and scaled, MLPs for every token beside them."""

from collections.abc import Sequence

from edgeq.models.config import Config
from edgeq.models.feed_forward import (
    ExpertMatrix,
    FeedForward,
    MixtureOfExperts,
    SharedMLP,
    gated,
    router,
    separate_experts,
)

LEAST = 1e-20  # added to the sum by which weights are normalized
MOST_GROUPS = 62
COUNTS = ("n_routed_experts", "num_local_experts", "num_experts")  # each may stand for the others
SHARED = ("n_shared_experts", "num_shared_experts")


def read_mixture(
    config: Config, n: int, normalized: bool = True, factor: float = 1.0, shared: int = 1, usual: int = 128
) -> FeedForward:
    """Of a layer whose residual stream has `n` values; the rest is what leaving keys out means, `usual` of experts."""
    config.refuse(hidden_act="silu")
    count = expert_count(config, usual)
    m = config.integer("moe_intermediate_size")
    experts = read_router(config, n, separate_experts(n, m, count), normalized, factor, usual=(count, 8))
    return with_shared(config, n, m, experts, shared)


def expert_count(config: Config, usual: int = 128) -> int:
    """How many experts there are, by any of the names that this has."""
    key = next((name for name in COUNTS if config.get(name) is not None), COUNTS[0])
    return config.integer(key, usual, most=4096)


def read_router(
    config: Config,
    n: int,
    matrices: Sequence[ExpertMatrix],
    normalized: bool = True,
    factor: float = 1.0,
    source: str = "mlp.gate",
    usual: tuple[int, int] = (128, 8),
) -> MixtureOfExperts:
    """The experts whose matrices these are, and what chooses among them; `usual` is how many there are, and how many
    each token needs."""
    count, top_k = expert_count(config, usual[0]), config.integer("num_experts_per_tok", usual[1])
    groups, top_groups = config.integer("n_group", 1), config.integer("topk_group", 1)
    if count % groups or top_groups > groups or groups > MOST_GROUPS or (groups > 1 and count < 2 * groups):
        raise config.malformed(f"{count} experts in {groups} groups of which {top_groups} count cannot be")
    if top_k > count // groups * top_groups:
        raise config.malformed(
            f"num_experts_per_tok is {top_k}, there are {count // groups * top_groups} to choose from"
        )
    return MixtureOfExperts(
        router(n, count, source, source),
        matrices,
        count,
        top_k,
        config.flag("norm_topk_prob", normalized),
        config.number("routed_scaling_factor", factor),
        bias=f"{source}.e_score_correction_bias",
        sigmoid=True,
        least=LEAST,
        groups=groups,
        top_groups=top_groups,
    )


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
