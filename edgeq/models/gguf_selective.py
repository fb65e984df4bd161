"""Mamba's layers in GGUF, where channels are twice as many as values of the residual stream, and models of Mamba-2's
alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.gguf_hooks import Config, Shapes, count_of, read_mamba, write_mamba
from edgeq.models.norms import PlainRMSNorm
from edgeq.models.selective_mixer import Mamba

KEYS = {"ssm.conv_kernel": "conv_kernel", "ssm.state_size": "state_size", "ssm.time_step_rank": "time_step_rank"}
JAMBA = {key: f"mamba_{name}" for key, name in zip(KEYS, ("d_conv", "d_state", "dt_rank"), strict=True)}
MAMBA2 = {
    "mamba_n_heads": "num_heads",
    "mamba_d_head": "head_dim",
    "mamba_n_groups": "n_groups",
    "mamba_d_state": "state_size",
    "mamba_d_conv": "conv_kernel",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_proj_bias": "use_bias",
}
NORMED = "ssm.dt_b_c_rms"  # whether there are norms within the layers


def selective_of(model: Model) -> Mamba | None:
    """That of the layers that have one."""
    return next((layer.mixer for layer in model.layers if isinstance(layer.mixer, Mamba)), None)


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Nothing more. UnsupportedError for another number of channels."""
    channels, width = count_of(values.get("ssm.inner_size")), count_of(values.get("embedding_length"))
    if channels != 2 * width:
        raise UnsupportedError(f"ssm.inner_size is {channels}, which is supported as {2 * width} only")
    return {}


def read_mamba2(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """All values together are some times as many as those of the residual stream."""
    found, width = read_mamba(values, shapes), count_of(values.get("embedding_length"))
    wide = count_of(values.get("ssm.inner_size")) // max(width, 1)
    return {name: found[key] for key, name in MAMBA2.items()} | {"expand": wide}


def write_mamba2(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    return write_mamba(model)


def read_falcon(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """All norms have one epsilon."""
    return read(values, shapes) | {"mixer_rms_eps": values.get("attention.layer_norm_rms_epsilon")}


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    mamba = selective_of(model)
    assert mamba is not None, "all layers are such"
    return {
        "ssm.inner_size": mamba.shape.channels,
        "ssm.time_step_rank": mamba.shape.rank,
        NORMED: mamba.norms is not None,
    }


def note_of(model: Model) -> list[str]:
    """What GGUF cannot say of the layers."""
    mamba = selective_of(model)
    norm = mamba.norms[0] if mamba and mamba.norms else None
    if not isinstance(norm, PlainRMSNorm) or norm.eps == model.norm_eps:
        return []
    return [f"GGUF has one epsilon for all norms: readers take {model.norm_eps} within Mamba layers, not {norm.eps}"]


def read_jamba(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Layers without key/value heads are Mamba's, those with a router have experts. UnsupportedError where these are
    not one of so many."""
    layers, heads = count_of(values.get("block_count")), values.get("attention.head_count_kv")
    attends = [bool(one) for one in heads] if isinstance(heads, list) else [bool(heads)] * layers
    routed = [f"blk.{i}.ffn_gate_inp.weight" in shapes for i in range(layers)]
    found: Config = {}
    for what, flags in (("attn_layer", attends[:layers]), ("expert_layer", routed)):
        period, offset = _every(flags)
        found |= {f"{what}_period": period, f"{what}_offset": offset}
    if not any(attends):
        found["num_key_value_heads"] = values.get("attention.head_count")  # of no layer
    return read(values, shapes) | found


def _every(flags: Sequence[bool]) -> tuple[int, int]:
    """As one of how many they are set, and which; one past the last where none is. UnsupportedError for others."""
    first = flags.index(True) if True in flags else len(flags)
    for period in range(first + 1, len(flags) + 2):
        if all(flag == (i % period == first) for i, flag in enumerate(flags)):
            return period, first
    raise UnsupportedError("layers of attention, or of experts, are not one of so many, which is not supported")


def write_jamba(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_jamba` reads it. UnsupportedError for a model without layers of Mamba."""
    mamba = selective_of(model)
    if mamba is None:
        raise UnsupportedError("a model without a recurrent layer cannot be exported")
    kept = model.heads.num_key_value_heads
    return {
        "ssm.inner_size": mamba.shape.channels,
        "ssm.time_step_rank": mamba.shape.rank,
        "attention.head_count_kv": [0 if isinstance(layer.mixer, Mamba) else kept for layer in model.layers],
        "expert_used_count": int(model.settings["num_experts_per_tok"]),
    }
