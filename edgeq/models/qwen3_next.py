"""Qwen3-Next: gated delta nets and gated attention, with experts and a gated shared one in most layers."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.delta_mixer import TwoProjections
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.qwen3_5_moe_text import read_shared
from edgeq.models.qwen3_5_text import hybrid
from edgeq.models.qwen3_moe import expert_settings, sparse


def compose(config: Config) -> Model:
    """Some layers may have MLPs."""
    size = read_dimensions(config)
    mlp = gated(size.hidden_size, size.intermediate_size, "silu")
    experts = read_shared(config.usually(norm_topk_prob=True), size.hidden_size, 512)
    settings = expert_settings(config.usually(moe_intermediate_size=512), experts.experts)
    settings |= {"shared_expert_intermediate_size": experts.shared.up.rows}
    ffns = [experts if here else mlp for here in sparse(config, size.num_hidden_layers)]
    return hybrid("qwen3_next", config, size, ffns, TwoProjections(), settings)
