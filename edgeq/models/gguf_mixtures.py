"""Mixtures of experts with attention in every layer, as GGUF writes them, and LFM2's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models import gguf_hooks as hooks
from edgeq.models.composition import Model
from edgeq.models.feed_forward import GatedMLP, MixtureOfExperts, SharedMLP
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import Config, Shapes, read_lfm2, write_lfm2
from edgeq.models.gguf_keys import (
    BIASES,
    EXPERT_WIDTH,
    EXPERTS,
    LOCAL_EXPERTS,
    MULTIPLIERS,
    NO_WINDOW,
    SHARED_EXPERTS,
    SPARSE,
    WINDOW,
)
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
    normalized = bool(config.get("norm_topk_prob", model.name != "dots1"))
    return {"expert_gating_func": SIGMOID, "expert_weights_norm": normalized, **written_groups(config)}


def written_groups(config: Mapping[str, Any]) -> dict[str, Any]:
    """How many there are and how many of them count, where there are several: llama.cpp wants both or none."""
    return {suffix: config.get(key, 1) for suffix, key in GROUPS.items()} if config.get("n_group", 1) != 1 else {}


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


def read_ling(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Weights are always normalized. The MLPs for every token are as one: some say its width, some a part's."""
    if values.get("expert_weights_norm", True) is not True:
        raise UnsupportedError("experts' weights are not normalized, which is not supported for bailingmoe2")
    return read(values, shapes) | {"num_shared_experts": _shared_experts(values, shapes)}


def write_ling(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_ling` reads it; GGUF's has an MLP for every token."""
    ffn = model.layers[-1].ffn
    if not isinstance(ffn, SharedMLP) or not isinstance(ffn.experts, MixtureOfExperts):
        raise UnsupportedError("a Ling without shared experts cannot be exported")
    experts, beside = ffn.experts, ffn.shared.up.rows
    groups = {"n_group": experts.groups, "topk_group": experts.top_groups}
    return {
        **write(model, {**config, **groups, "norm_topk_prob": True}),
        "expert_shared_count": beside // experts.width,
        "expert_shared_feed_forward_length": experts.width,
    }


def check_sigmoid(values: Mapping[str, Any]) -> None:
    """UnsupportedError for experts that are scored in another way."""
    if values.get("expert_gating_func", SIGMOID) != SIGMOID:
        raise UnsupportedError(f"expert_gating_func {values['expert_gating_func']!r} is not supported: 2 is, sigmoids")


def read_ernie(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """The MLPs for every token are as one, whose width is a multiple of an expert's."""
    if values.get("interleave_moe_layer_step", 1) != 1:
        raise UnsupportedError("layers of experts with others in between are not supported for ernie4_5-moe")
    return {"moe_num_shared_experts": _shared_experts(values, shapes)}


def _shared_experts(values: Mapping[str, Any], shapes: Shapes) -> int:
    """How many experts wide the MLP for every token is."""
    wide = next((shape[0] for name, shape in shapes.items() if name.endswith(".ffn_up_shexp.weight")), 0)
    one = values.get("expert_feed_forward_length")
    one = one[0] if isinstance(one, list) and one else one
    return wide // one if isinstance(one, int) and one > 0 else 0


def write_ernie(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's has experts in all layers from one on."""
    with_experts = [not isinstance(layer.ffn, GatedMLP) for layer in model.layers]
    first = with_experts.index(True) if any(with_experts) else len(with_experts)
    if not all(with_experts[first:]):
        raise UnsupportedError("an ERNIE 4.5 with layers of experts and others in turn cannot be exported")
    ffn = model.layers[-1].ffn
    shared = {"expert_shared_feed_forward_length": ffn.shared.up.rows} if isinstance(ffn, SharedMLP) else {}
    count = config.get("moe_num_shared_experts", 2)
    return {"interleave_moe_layer_step": 1, "leading_dense_block_count": first, "expert_shared_count": count} | shared


def read_mellum(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """One layer of four is global where nothing says it; local layers turn by the same theta, without a scaling."""
    layers, theta = values.get("block_count"), values.get("rope.freq_base", 10000.0)
    count = layers[0] if isinstance(layers, list) else layers
    if values.get("rope.freq_base_swa", theta) != theta:
        raise UnsupportedError("rope.freq_base_swa is not supported for mellum")
    given = values.get("attention.sliding_window_pattern")
    local = given if isinstance(given, list) else [(i + 1) % 4 != 0 for i in range(count or 0)]
    kinds = ["sliding_attention" if one else "full_attention" for one in local[:count]]
    own = {"rope_type": "default", "rope_theta": theta}
    return {
        "layer_types": kinds,
        "rope_parameters": {"sliding_attention": own, "full_attention": {"rope_theta": theta}},
    }


def write_mellum(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's has experts in all layers."""
    if any(isinstance(layer.ffn, GatedMLP) for layer in model.layers):
        raise UnsupportedError("a Mellum with layers without experts cannot be exported")
    return {
        "attention.sliding_window": max(window or 0 for window in model.windows),
        "attention.sliding_window_pattern": [window is not None for window in model.windows],
    }


def gpt_oss(config: Mapping[str, Any]) -> Config:
    """Every second layer is global."""
    return {"layer_types": [("sliding_attention", "full_attention")[i % 2] for i in range(config["num_hidden_layers"])]}


def write_olmoe(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    heads = model.heads
    if heads.num_key_value_heads != heads.num_attention_heads:
        raise UnsupportedError("an OLMoE with fewer key/value heads than query heads cannot be exported")
    return {}


_ROUTED = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_weights_scale": "routed_scaling_factor",
}
MIXTURES = {
    "qwen2moe": GgufArchitecture(
        "qwen2_moe",
        keys=SHARED_EXPERTS,
        fixed={**NO_WINDOW, "norm_topk_prob": False, **SPARSE},
        biases={"qkv_bias": "blk.0.attn_q.bias"},
        vectors=("ffn_gate_inp_shexp",),
    ),
    "qwen3moe": GgufArchitecture(
        "qwen3_moe",
        keys=EXPERTS | EXPERT_WIDTH,
        fixed={**NO_WINDOW, "attention_bias": False, "norm_topk_prob": True, **SPARSE},
    ),
    "granitemoe": GgufArchitecture("granitemoe", interleaved=True, keys=MULTIPLIERS | LOCAL_EXPERTS, biases=BIASES),
    "olmoe": GgufArchitecture("olmoe", keys=EXPERTS, fixed={"norm_topk_prob": False}, write=write_olmoe),
    "gpt-oss": GgufArchitecture(
        "gpt_oss",
        keys=LOCAL_EXPERTS | WINDOW | {"expert_feed_forward_length": "intermediate_size"},
        fixed={"hidden_act": "silu", "attention_bias": True, "swiglu_alpha": 1.702, "swiglu_limit": 7.0},
        derived=gpt_oss,
        yarn={"truncate": False},
    ),
    "lfm2moe": GgufArchitecture(
        "lfm2_moe",
        names={"rms_norm_eps": "norm_eps"},
        keys={"shortconv.l_cache": "conv_L_cache", "leading_dense_block_count": "num_dense_layers"}
        | EXPERTS
        | EXPERT_WIDTH,
        fixed={"conv_bias": False, "use_expert_bias": True, "norm_topk_prob": True, "routed_scaling_factor": 1.0},
        read=read_lfm2_moe,
        write=write_lfm2_moe,
        renamed={"output_norm": "token_embd_norm"},
    ),
    "glm4moe": GgufArchitecture(
        "glm4_moe",
        keys=_ROUTED | EXPERT_WIDTH,
        fixed={"hidden_act": "silu"},
        assumed={"partial_rotary_factor": 1.0},
        biases={"attention_bias": "blk.0.attn_q.bias", "use_qk_norm": "blk.0.attn_q_norm.weight"},
        read=read,
        write=write,
        renamed={"ffn_norm": "post_attention_norm"},
    ),
    "bailingmoe2": GgufArchitecture(
        "bailing_moe_v2",
        keys=EXPERTS
        | EXPERT_WIDTH
        | {
            "expert_shared_count": "num_shared_experts",
            "leading_dense_block_count": "first_k_dense_replace",
            "expert_weights_scale": "routed_scaling_factor",
        },
        fixed={"hidden_act": "silu", "use_bias": False, "use_qkv_bias": False, "use_qk_norm": True},
        assumed={"partial_rotary_factor": 1.0},
        read=read_ling,
        write=write_ling,
        fused=("attn_qkv",),
        square=True,
    ),
    "dots1": GgufArchitecture(
        "dots1",
        keys=_ROUTED | EXPERT_WIDTH,
        fixed={"hidden_act": "silu", "attention_bias": False},
        assumed={"sliding_window": None},
        read=read,
        write=write_dots1,
    ),
    "afmoe": GgufArchitecture(
        "afmoe",
        keys=WINDOW
        | EXPERTS
        | EXPERT_WIDTH
        | {
            "expert_shared_count": "num_shared_experts",
            "leading_dense_block_count": "num_dense_layers",
            "expert_weights_scale": "route_scale",
        },
        fixed={"hidden_act": "silu", "attention_bias": False, "mup_enabled": True, "global_attn_every_n_layers": 4},
        derived=hooks.every(4),
        read=read_afmoe,
        write=write_afmoe,
    ),
    "mellum": GgufArchitecture(
        "mellum",
        keys=EXPERTS | EXPERT_WIDTH | WINDOW,
        fixed={"hidden_act": "silu", "attention_bias": False, "norm_topk_prob": True},
        read=read_mellum,
        write=write_mellum,
    ),
    "ernie4_5-moe": GgufArchitecture(
        "ernie4_5_moe",
        keys={
            "expert_count": "moe_num_experts",
            "expert_used_count": "moe_k",
            "expert_feed_forward_length": "moe_intermediate_size",
            "leading_dense_block_count": "moe_layer_start_index",
        },
        fixed={"hidden_act": "silu", "use_bias": False},
        read=read_ernie,
        write=write_ernie,
    ),
}
# A Llama with experts
MIXTRAL = GgufArchitecture("mixtral", interleaved=True, keys=LOCAL_EXPERTS)
GRANITE_KEYS = MULTIPLIERS | LOCAL_EXPERTS | {"expert_shared_feed_forward_length": "shared_intermediate_size"}
GRANITE_SHARED = replace(MIXTURES["granitemoe"], model_type="granitemoeshared", keys=GRANITE_KEYS)
