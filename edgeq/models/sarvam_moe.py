"""Sarvam 30B: Ling 2.0 all of whose heads is rotated, with experts in one group."""

from dataclasses import replace

from edgeq.models import bailing_moe_v2
from edgeq.models.composition import Model
from edgeq.models.config import Config

THETA = 8000000.0
# What its first configuration calls things -> what transformers does
NAMES = {"num_experts": "n_routed_experts", "num_shared_experts": "n_shared_experts", "use_qkv_bias": "attention_bias"}
# What GGUF says as well
SETTINGS = (
    *("num_experts", "num_experts_per_tok", "moe_intermediate_size", "num_shared_experts", "first_k_dense_replace"),
    "routed_scaling_factor",
)
# What leaving these out means
USUAL = {
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "partial_rotary_factor": 1.0,
    "rope_theta": THETA,
    "moe_intermediate_size": 1024,
    "num_experts_per_tok": 6,
    "routed_scaling_factor": 2.5,
    "n_group": 1,
    "topk_group": 1,
}


def compose(config: Config) -> Model:
    """The checkpoint's names are Ling's, the configuration's may be GLM 4.5's; Ling's count where both are there."""
    config.refuse(norm_topk_prob=True)
    config = config.usually(**USUAL)
    given = {own: config.get(own, config.get(other)) for own, other in NAMES.items()}
    named = {own: value for own, value in given.items() if value is not None}
    others = dict.fromkeys(("n_routed_experts", "num_local_experts", "n_shared_experts"))
    config = config.changed(**others, **named).usually(num_experts=128, num_shared_experts=1, first_k_dense_replace=1)
    model = bailing_moe_v2.compose(config)
    settings = {key: config.get(key) for key in SETTINGS}
    return replace(model, name="sarvam_moe", settings={"rope_theta": THETA, **settings})
