"""Nemotron-H in GGUF: layers are told by their key/value heads and the width of their MLPs, 0 where there are none."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.feed_forward import PlainMLP, SharedMLP
from edgeq.models.gguf_hooks import Config, Shapes, read_mamba, write_mamba
from edgeq.models.gguf_mixtures import GROUPS, written_groups
from edgeq.models.latent_experts import LatentExperts
from edgeq.models.matrix import FURTHER
from edgeq.models.mixers import Attention
from edgeq.models.nemotron_h import routed

MAMBA = {
    "mamba_n_heads": "mamba_num_heads",
    "mamba_d_head": "mamba_head_dim",
    "mamba_n_groups": "n_groups",
    "mamba_d_state": "ssm_state_size",
    "mamba_d_conv": "conv_kernel",
    "mamba_conv_bias": "use_conv_bias",
}
MOE = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
    "expert_weights_scale": "routed_scaling_factor",
}


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """What predicts further tokens comes after the layers."""
    count = _first(values["block_count"])
    heads, widths = (_each(values.get(key), count) for key in ("attention.head_count_kv", "feed_forward_length"))
    further = values.get("nextn_predict_layers") or 0
    layers, fed = count - further, "moe" if "expert_count" in values else "mlp"
    kinds = [
        fed if wide else "full_attention" if kept else "linear_attention"
        for kept, wide in zip(heads[:layers], widths[:layers], strict=True)
    ]
    mamba = read_mamba(values, shapes)
    found = {name: mamba[key] for key, name in MAMBA.items()} | {
        "layers_block_type": kinds,
        "num_hidden_layers": layers,
        "use_bias": mamba["mamba_proj_bias"],
        "mlp_bias": any(name.endswith(".ffn_up.bias") for name in shapes),
        "intermediate_size": max(widths, default=0) or 1,
    }
    if further:
        found[FURTHER] = further
    if fed == "moe":
        found |= {key: values.get(suffix, 1) for suffix, key in GROUPS.items()}
        found |= {"norm_topk_prob": values.get("expert_weights_norm") is True}
        found |= {"moe_latent_size": values["moe_latent_size"]} if values.get("moe_latent_size") else {}
    return found


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """UnsupportedError for layers of experts beside layers of MLPs, and for matrices with biases that GGUF's readers do
    not know."""
    mixtures = [layer.mixer for layer in model.layers if isinstance(layer.mixer, SharedMLP)]
    mlps = [layer.mixer for layer in model.layers if isinstance(layer.mixer, PlainMLP)]
    if mixtures and mlps:
        raise UnsupportedError("a Nemotron-H with layers of experts and of MLPs cannot be exported")
    if mixtures and config.get("mlp_bias"):
        raise UnsupportedError("a Nemotron-H with experts and biases cannot be exported")
    kept = model.heads.num_key_value_heads
    values = write_mamba(model) | {
        "attention.layer_norm_epsilon": model.norm_eps,
        "attention.head_count_kv": [kept if isinstance(layer.mixer, Attention) else 0 for layer in model.layers],
        "feed_forward_length": [_width(layer.mixer) for layer in model.layers],
    }
    if mixtures:
        values |= written_groups(config)
        values |= {"expert_gating_func": 2, "expert_weights_norm": bool(config.get("norm_topk_prob", True))}
        values |= {"expert_weights_scale": float(config.get("routed_scaling_factor", 1.0)), "expert_shared_count": 1}
        experts = mixtures[0].experts
        values |= {"moe_latent_size": experts.into.rows} if isinstance(experts, LatentExperts) else {}
    return values


def _width(mixer: object) -> int:
    """Of a layer's MLP, or of its experts; 0 if it has neither."""
    if isinstance(mixer, PlainMLP):
        return mixer.up.rows
    if not isinstance(mixer, SharedMLP):
        return 0
    return routed(mixer).width


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


def _each(value: Any, layers: int) -> list[int]:
    """Of each layer."""
    every = value if isinstance(value, list) else [value] * layers
    return [number if isinstance(number, int) else 0 for number in every]
