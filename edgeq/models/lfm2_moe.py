"""LFM2 with experts in all but the first layers, chosen by sigmoids and a bias."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import MixtureOfExperts, read_experts, router, separate_experts
from edgeq.models.lfm2 import lfm2, read_mlp
from edgeq.models.sigmoid_mixture import dense_layers

LEAST = 1e-6  # added to the sum by which weights are normalized


def compose(config: Config) -> Model:
    """The MLP's width is as config.json says it."""
    size = read_dimensions(config)
    mlp, experts = read_mlp(config, size), read_mixture(config, size.hidden_size)
    dense = dense_layers(config, "num_dense_layers", 2, size.num_hidden_layers)
    return lfm2("lfm2_moe", config, size, [mlp if here else experts for here in dense])


def read_mixture(config: Config, n: int) -> MixtureOfExperts:
    """The experts of a layer whose residual stream has `n` values."""
    count, top_k = read_experts(config, "num_experts", 32, 4)
    source = "feed_forward.experts.{{}}.{}"
    separate = separate_experts(n, config.integer("moe_intermediate_size", 1792), count, source, ("w1", "w3", "w2"))
    stacked = (
        "feed_forward.experts.gate_up_proj",
        "feed_forward.experts.gate_up_proj",
        "feed_forward.experts.down_proj",
    )
    matrices = [each._replace(stacked=(name,)) for each, name in zip(separate, stacked, strict=True)]
    return MixtureOfExperts(
        router(n, count, "feed_forward.gate", ""),
        matrices,
        count,
        top_k,
        config.flag("norm_topk_prob", True),
        config.number("routed_scaling_factor", 1.0),
        bias="feed_forward.expert_bias" if config.flag("use_expert_bias", True) else "",
        sigmoid=True,
        least=LEAST,
    )
