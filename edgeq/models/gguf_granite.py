"""Granite 4 and Granite with local layers in GGUF: what no table says of their keys."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.gguf_hooks import Config, Shapes, count_of, mamba_of, read_mamba, write_mamba
from edgeq.models.mamba_mixer import Mamba2
from edgeq.models.mixers import Attention


def read_granite4(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Layers without key/value heads are Mamba's; where the rotary embedding was not trained there is none."""
    heads, layers = values.get("attention.head_count_kv"), values["block_count"]
    count = layers[0] if isinstance(layers, list) else layers
    every = heads if isinstance(heads, list) else [heads] * count
    kinds = ["mamba" if one == 0 else "attention" for one in every]
    rotated = values.get("rope.scaling.finetuned", True)
    found: Config = {"layer_types": kinds, "position_embedding_type": "rope" if rotated else "nope"}
    if "expert_count" not in values:
        found |= {"shared_intermediate_size": values.get("feed_forward_length"), "num_local_experts": 0}
    if "mamba" not in kinds:
        return found
    wide = count_of(values.get("ssm.inner_size")) // max(count_of(values.get("embedding_length")), 1)
    return found | read_mamba(values, shapes) | {"mamba_expand": wide}


def write_granite4(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {} if model.rope.inverse_frequencies else {"rope.scaling.finetuned": False}
    if mamba_of(model) is None:
        return found
    heads = model.heads.num_key_value_heads
    every = [0 if isinstance(layer.mixer, Mamba2) else heads for layer in model.layers]
    return found | write_mamba(model) | {"attention.head_count_kv": every}


def read_swa(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Which layers are local, and which have a rotary embedding; all that have one turn by the same theta."""
    layers = count_of(values.get("block_count"))
    given, turned = values.get("attention.sliding_window_pattern"), values.get("attention.rope_pattern")
    found: Config = {}
    if isinstance(given, list):
        found["layer_types"] = [("full_attention", "sliding_attention")[bool(one)] for one in given[:layers]]
    if isinstance(turned, list):
        theta = values.get("rope.freq_base", 10000.0)
        found["layer_rope_theta"] = [theta if one else 0 for one in turned[:layers]]
    return found


def write_swa(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_swa` reads it."""
    mixers = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)]
    turned = [bool(mixer.rope.inverse_frequencies) for mixer in mixers]
    parameters = config.get("rope_parameters") or {}
    usual = parameters.get("rope_theta", config.get("rope_theta", 10000.0))
    if not {*(config.get("layer_rope_theta") or ())} <= {0, usual} or not any(turned):
        raise UnsupportedError("a Granite whose layers' rotary embeddings differ cannot be exported")
    return {
        "attention.sliding_window": max((window or 0 for window in model.windows), default=0),
        "attention.sliding_window_pattern": [window is not None for window in model.windows],
        "attention.rope_pattern": turned,
    }
