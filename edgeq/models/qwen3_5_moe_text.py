"""Qwen3.5's mixtures of experts: with experts and a gated shared one in the place of the MLPs."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.delta_mixer import FourProjections
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import SharedExpert, gated
from edgeq.models.matrix import Matrix
from edgeq.models.qwen3_5_text import hybrid
from edgeq.models.qwen3_moe import expert_settings, read_mixture


def compose(config: Config) -> Model:
    """In every layer."""
    size = read_dimensions(config.usually(intermediate_size=1))  # there is no MLP
    experts = read_shared(config.changed(norm_topk_prob=True), size.hidden_size, 256)
    return hybrid(
        "qwen3_5_moe_text",
        config,
        size,
        [experts] * size.num_hidden_layers,
        FourProjections(),
        expert_settings(config.usually(moe_intermediate_size=512), experts.experts)
        | {"shared_expert_intermediate_size": experts.shared.up.rows},
    )


def read_shared(config: Config, n: int, count: int) -> SharedExpert:
    """Experts, and one for every token, which has a gate; `count` unless the configuration says otherwise."""
    config = config.usually(moe_intermediate_size=512, shared_expert_intermediate_size=512)
    wide = config.integer("shared_expert_intermediate_size")
    return SharedExpert(
        read_mixture(config, n, count),
        gated(n, wide, "silu", source="mlp.shared_expert.{}", suffix="_shexp"),
        Matrix("ffn_gate_inp_shexp", "mlp.shared_expert_gate", 1, n),
    )
