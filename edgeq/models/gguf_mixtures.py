"""Experts that are chosen by sigmoids in GGUF: what no table says of their keys."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.gguf_hooks import Config, Shapes, read_lfm2, write_lfm2
from edgeq.models.mixers import Attention

SIGMOID = 2  # GGUF's number of it
GROUPS = {"expert_group_count": "n_group", "expert_group_used_count": "topk_group"}


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Weights are normalized where a flag says so; without groups there is one."""
    check_sigmoid(values)
    config = {key: values.get(suffix, 1) for suffix, key in GROUPS.items()}
    return config | {"norm_topk_prob": values.get("expert_weights_norm") is True}


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read` reads it."""
    groups = {suffix: config.get(key, 1) for suffix, key in GROUPS.items() if config.get(key, 1) != 1}
    normalized = bool(config.get("norm_topk_prob", model.name != "dots1"))
    return {"expert_gating_func": SIGMOID, "expert_weights_norm": normalized, **groups}


def write_dots1(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's has a key head for every query head, and no local layers."""
    mixers = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)]
    if any(mixer.heads.num_key_value_heads != mixer.heads.num_attention_heads for mixer in mixers):
        raise UnsupportedError("a dots.llm1 with fewer key/value heads than query heads cannot be exported")
    if any(model.windows):
        raise UnsupportedError("a dots.llm1 with local layers cannot be exported")
    return write(model, config)


def read_afmoe(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Weights are always normalized."""
    check_sigmoid(values)
    if values.get("expert_weights_norm", True) is not True:
        raise UnsupportedError("experts' weights are not normalized, which is not supported for afmoe")
    return {}


def write_afmoe(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_afmoe` reads it."""
    return {"expert_gating_func": SIGMOID, "expert_weights_norm": True}


def read_lfm2_moe(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """LFM2's kinds of layers."""
    check_sigmoid(values)
    return read_lfm2(values, shapes)


def write_lfm2_moe(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """LFM2's kinds of layers."""
    return {**write_lfm2(model, config), "expert_gating_func": SIGMOID}


def check_sigmoid(values: Mapping[str, Any]) -> None:
    """UnsupportedError for experts that are scored in another way."""
    if values.get("expert_gating_func", SIGMOID) != SIGMOID:
        raise UnsupportedError(f"expert_gating_func {values['expert_gating_func']!r} is not supported: 2 is, sigmoids")
