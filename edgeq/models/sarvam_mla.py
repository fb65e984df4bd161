"""Sarvam 105B: DeepSeek-V3 without a latent of queries, with experts in one group."""

from dataclasses import replace

from edgeq.models import deepseek_v3
from edgeq.models.composition import Model
from edgeq.models.config import Config

# What leaving these out means
USUAL = {
    "max_position_embeddings": 4096,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
RENAMED = {"num_experts": "n_routed_experts", "num_shared_experts": "n_shared_experts"}  # in its first configuration


def compose(config: Config) -> Model:
    """Its first configuration calls yarn after DeepSeek, and says a head's size that no layer has."""
    values = {key: value for key, value in config.values.items() if key != "head_dim"}
    values |= {there: config.get(here) for here, there in RENAMED.items() if config.get(here) is not None}
    scaling = values.get("rope_scaling")
    if isinstance(scaling, dict) and "deepseek_yarn" in (scaling.get("type"), scaling.get("rope_type")):
        values["rope_scaling"] = {key: scaling[key] for key in scaling if key != "type"} | {"rope_type": "yarn"}
    model = deepseek_v3.compose(config.within({"q_lora_rank": None, **values}).usually(**USUAL))
    return replace(model, name="sarvam_mla")
