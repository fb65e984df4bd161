"""What no table can say of how GGUF writes architectures: keys that follow from others, and from tensors."""

from collections.abc import Callable, Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.delta_mixer import IN_TURN, DeltaShape, GatedDeltaNet
from edgeq.models.falcon_h1 import Beside
from edgeq.models.mamba_mixer import Mamba2
from edgeq.models.matrix import FURTHER
from edgeq.models.mixers import ShortConvolution

Config = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


def gemma(every: int, largest: int) -> Callable[[Mapping[str, Any]], Config]:
    """Every so many layers one is global. Scores are scaled by the head's size, in the model with the most layers by
    the residual stream's share of it."""

    def derive(config: Mapping[str, Any]) -> Config:
        share = config["hidden_size"] // config["num_attention_heads"]
        layers = config["num_hidden_layers"]
        kinds = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
        scalar = share if layers == largest else config.get("head_dim", 256)
        return {"query_pre_attn_scalar": scalar, "layer_types": kinds}

    return derive


def smollm3(config: Mapping[str, Any]) -> Config:
    """Every fourth layer has no rotary embedding."""
    return {"no_rope_layers": [int((i + 1) % 4 != 0) for i in range(config["num_hidden_layers"])]}


def read_bitnet(values: Mapping[str, Any], shapes: Shapes) -> Config:
    return {"hidden_act": str(values.get("hidden_activation", "silu"))}


def write_bitnet(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"hidden_activation": str(config.get("hidden_act", "relu2"))}


def read_lfm2(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Layers without key/value heads are convolutions."""
    heads = values.get("attention.head_count_kv")
    layers = values["block_count"]
    kinds = heads if isinstance(heads, list) else [heads] * (layers[0] if isinstance(layers, list) else layers)
    return {"layer_types": ["full_attention" if kind else "conv" for kind in kinds]}


def write_lfm2(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    heads = model.heads.num_key_value_heads
    convolves = [isinstance(layer.mixer, ShortConvolution) for layer in model.layers]
    return {"attention.head_count_kv": [0 if convolution else heads for convolution in convolves]}


def every(pattern: int) -> Callable[[Mapping[str, Any]], Config]:
    """One layer of so many is global."""

    def derive(config: Mapping[str, Any]) -> Config:
        layers = range(config["num_hidden_layers"])
        return {"layer_types": [("sliding_attention", "full_attention")[(i + 1) % pattern == 0] for i in layers]}

    return derive


def exaone4(config: Mapping[str, Any]) -> Config:
    """The model of 64 layers has local ones, and no other."""
    return every(4)(config) if config["num_hidden_layers"] == 64 else {"sliding_window": None}


def read_exaone4(values: Mapping[str, Any], shapes: Shapes) -> Config:
    local = values.get("block_count") == 64
    return {"sliding_window": values.get("attention.sliding_window", 4096) if local else None}


def write_exaone4(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    if any(model.windows) and model.num_hidden_layers != 64:
        raise UnsupportedError(f"an EXAONE 4 with local layers has 64 of them, not {model.num_hidden_layers}")
    return {}


def minicpm(config: Mapping[str, Any]) -> Config:
    """Granite whose scores are scaled by the head's size."""
    return {"attention_multiplier": config["head_dim"] ** -0.5}


def mamba_of(model: Model) -> Mamba2 | None:
    """That of the layers that have one."""
    mixers = [layer.mixer for layer in model.layers]
    found = [mixer.mamba if isinstance(mixer, Beside) else mixer for mixer in mixers]
    return next((mixer for mixer in found if isinstance(mixer, Mamba2)), None)


def is_routed(model: Model) -> bool:
    """Whether it has experts."""
    return any(name.endswith(".ffn_gate_inp.weight") for name in model.tensors)


def read_mamba(values: Mapping[str, Any], shapes: Shapes) -> Config:
    heads = count_of(values.get("ssm.time_step_rank"))

    def has(tensor: str) -> bool:
        return any(name.endswith(tensor) for name in shapes)

    return {
        "mamba_n_heads": heads,
        "mamba_d_head": count_of(values.get("ssm.inner_size")) // max(heads, 1),
        "mamba_n_groups": count_of(values.get("ssm.group_count")),
        "mamba_d_state": count_of(values.get("ssm.state_size")),
        "mamba_d_conv": count_of(values.get("ssm.conv_kernel")),
        "mamba_conv_bias": has(".ssm_conv1d.bias"),
        "mamba_proj_bias": has(".ssm_in.bias"),
    }


def write_mamba(model: Model) -> dict[str, Any]:
    mamba = mamba_of(model)
    if mamba is None:
        raise UnsupportedError("a model without a recurrent layer cannot be exported")
    if mamba.bias or mamba.out_bias:
        raise UnsupportedError("Mamba layers whose projections have biases cannot be exported")
    if not mamba.conv_bias:
        raise UnsupportedError("Mamba layers whose convolution has no bias cannot be exported")
    if mamba.eps and not mamba.gate_first:
        raise UnsupportedError("Mamba layers that norm before the gate cannot be exported")
    return {
        "ssm.conv_kernel": mamba.shape.taps,
        "ssm.inner_size": mamba.shape.values,
        "ssm.state_size": mamba.shape.size,
        "ssm.time_step_rank": mamba.shape.heads,
        "ssm.group_count": mamba.shape.groups,
    }


def read_falcon_h1(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Its factors are in the weights."""
    return read_mamba(values, shapes) | {
        "mamba_d_ssm": count_of(values.get("ssm.inner_size")),
        "mamba_rms_norm": "blk.0.ssm_norm.weight" in shapes,
        "mamba_norm_before_gate": False,
    }


def write_falcon_h1(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    return write_mamba(model)


IN_TURN_THERE = ("qwen35", "qwen35moe")  # where value heads take the keys in turn


def delta_shape(model: Model) -> DeltaShape | None:
    """Of the layers that are such nets."""
    return next((layer.mixer.shape for layer in model.layers if isinstance(layer.mixer, GatedDeltaNet)), None)


def read_qwen3_next(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """What predicts further tokens comes after the layers. Every fourth of these is attention where nothing says it."""
    layers, heads = (count_of(values.get(key)) for key in ("block_count", "ssm.time_step_rank"))
    further = count_of(values.get("nextn_predict_layers"))
    layers -= further
    every = count_of(values.get("full_attention_interval")) or 4
    given = values.get("attention.recurrent_layers")
    recurrent = given if isinstance(given, list) else [(i + 1) % every != 0 for i in range(layers)]
    return {
        "num_hidden_layers": layers,
        **({FURTHER: further} if further else {}),
        "linear_value_head_dim": count_of(values.get("ssm.inner_size")) // max(heads, 1),
        "layer_types": [("full_attention", "linear_attention")[bool(one)] for one in recurrent[: max(layers, 0)]],
    }


def count_of(value: Any) -> int:
    """A number that counts; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31 else 0


def read_qwen3_5(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Value heads take the keys in turn."""
    shared = values.get("ssm.time_step_rank") != values.get("ssm.group_count")
    return read_qwen3_next(values, shapes) | {IN_TURN: shared}


def write_qwen3_next(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    shape = delta_shape(model)
    if shape is None:
        raise UnsupportedError("a model without a recurrent layer cannot be exported")
    if shape.key_dim != shape.value_dim:
        raise UnsupportedError("keys and values of different sizes cannot be exported")
    return {
        "ssm.inner_size": shape.values,
        "attention.recurrent_layers": [isinstance(layer.mixer, GatedDeltaNet) for layer in model.layers],
        "full_attention_interval": 4,
    }


def write_qwen3_5(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    shape = delta_shape(model)
    if shape is None:
        raise UnsupportedError("a model without a recurrent layer cannot be exported")
    if shape.heads != shape.key_heads and not shape.in_turn:
        raise UnsupportedError("value heads that share keys have another order in GGUF, and cannot be exported")
    pairs = len(model.rope.inverse_frequencies)
    # Of positions in time, height and width, which are the same for texts
    return write_qwen3_next(model, config) | {
        "rope.dimension_sections": [(pairs + 2) // 3, (pairs + 1) // 3, pairs // 3, 0]
    }
