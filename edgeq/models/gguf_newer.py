"""Jais 2, and mixtures of experts of Hunyuan (1 and 3), MiniMax, EXAONE, Cohere and Llama 4 in GGUF."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.feed_forward import GatedMLP, MixtureOfExperts, SharedMLP
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import Config, Shapes, count_of
from edgeq.models.gguf_keys import EXPERTS, LOCAL_EXPERTS, WINDOW
from edgeq.models.gguf_mixtures import SIGMOID, check_sigmoid
from edgeq.models.matrix import FURTHER
from edgeq.models.mixers import Attention

FURTHER_THERE = "nextn_predict_layers"  # among the layers that are counted
PATTERN = "attention.sliding_window_pattern"
SOFTMAX = 1  # GGUF's number of it


def read_local(values: Mapping[str, Any], first: bool = False) -> Config:
    """How many layers there are, and which are local: all but one of so many, the last or the `first`; of four where
    nothing says it."""
    layers, further = count_of(values.get("block_count")), count_of(values.get(FURTHER_THERE))
    layers -= further
    if values.get("rope.freq_base_swa", values.get("rope.freq_base")) != values.get("rope.freq_base"):
        raise UnsupportedError("rope.freq_base_swa is not supported")
    given = values.get(PATTERN)
    if isinstance(given, list):
        local = given
    else:
        every = 4 if given is None else count_of(given)
        local = [not every or (i + (not first)) % every != 0 for i in range(layers)]
    kinds = [("full_attention", "sliding_attention")[bool(one)] for one in local[: max(layers, 0)]]
    return {"num_hidden_layers": layers, "layer_types": kinds, **({FURTHER: further} if further else {})}


def write_local(model: Model, name: str) -> dict[str, Any]:
    """As `read_local` reads it."""
    windows = {window for window in model.windows if window}
    if not windows:
        raise UnsupportedError(f"a model without local layers cannot be exported as {name}")
    return {"attention.sliding_window": windows.pop(), PATTERN: [window is not None for window in model.windows]}


def first_dense(model: Model, name: str) -> int:
    """How many layers have an MLP alone; UnsupportedError where these are not the first ones."""
    dense = [isinstance(layer.ffn, GatedMLP) for layer in model.layers]
    if dense != sorted(dense, reverse=True):
        raise UnsupportedError(f"layers of experts and others in turn cannot be exported as {name}")
    return sum(dense)


def mixture_of(model: Model) -> tuple[MixtureOfExperts | None, int]:
    """The experts of the last layer with some, and how wide the MLP for every token beside them is, 0 if there is
    none."""
    ffn = next((layer.ffn for layer in reversed(model.layers) if not isinstance(layer.ffn, GatedMLP)), None)
    beside = ffn.shared.up.rows if isinstance(ffn, SharedMLP) else 0
    experts = ffn.experts if isinstance(ffn, SharedMLP) else ffn
    return (experts if isinstance(experts, MixtureOfExperts) else None), beside


def read_exaone(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Experts are chosen by sigmoids, from one group."""
    check_sigmoid(values)
    if count_of(values.get("expert_group_count")) > 1:
        raise UnsupportedError("expert_group_count is not supported for exaone-moe")
    return read_local(values) | {
        "norm_topk_prob": values.get("expert_weights_norm") is True,
        "first_k_dense_replace": values.get("leading_dense_block_count", 0),
        "num_shared_experts": values.get("expert_shared_count", 1),
    }


def write_exaone(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's has an MLP for every token beside the experts."""
    experts, beside = mixture_of(model)
    if experts is None or not beside:
        raise UnsupportedError("an EXAONE without shared experts cannot be exported")
    return write_local(model, "exaone-moe") | {
        "expert_feed_forward_length": experts.width,
        "expert_shared_feed_forward_length": beside,
        "expert_shared_count": beside // experts.width,
        "expert_gating_func": SIGMOID,
        "expert_weights_scale": experts.factor,
        "expert_weights_norm": experts.normalized,
        "leading_dense_block_count": first_dense(model, "exaone-moe"),
    }


def read_hunyuan(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Experts, and what every token reads, are as wide as the MLP is said to be."""
    for key in ("expert_feed_forward_length", "expert_shared_feed_forward_length"):
        if values.get(key, values.get("feed_forward_length")) != values.get("feed_forward_length"):
            raise UnsupportedError(f"{key} is not feed_forward_length, which is not supported for hunyuan-moe")
    return {"moe_topk": count_of(values.get("expert_used_count"))}


def write_hunyuan(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's layers need the same number of experts."""
    ffns = [layer.ffn.experts for layer in model.layers if isinstance(layer.ffn, SharedMLP)]
    needed = {ffn.top_k for ffn in ffns if isinstance(ffn, MixtureOfExperts)}
    if len(needed) != 1:
        raise UnsupportedError("a Hunyuan whose layers need different numbers of experts cannot be exported")
    wide = model.size.intermediate_size
    return {
        "expert_used_count": needed.pop(),
        "expert_feed_forward_length": wide,
        "expert_shared_feed_forward_length": wide,
        "expert_shared_count": 1,
    }


def read_minimax(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Weights are always normalized; layers that predict further tokens come last."""
    check_sigmoid(values)
    further = count_of(values.get(FURTHER_THERE))
    layers = count_of(values.get("block_count")) - further
    return {"num_hidden_layers": layers, **({FURTHER: further} if further else {})}


def write_minimax(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """What readers ask for beside."""
    return {"expert_feed_forward_length": model.size.intermediate_size, "expert_gating_func": SIGMOID}


def read_cohere(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Sigmoids where nothing is said of how experts are chosen; of all scores' softmax only where it is normalized."""
    kind, normalized = values.get("expert_gating_func", SIGMOID), values.get("expert_weights_norm") is True
    if kind != SIGMOID and (kind != SOFTMAX or not normalized):
        raise UnsupportedError(
            f"expert_gating_func {str(kind)[:20]} with weights that are not normalized: not supported"
        )
    if values.get("expert_weights_scale", 1.0) not in (0.0, 1.0):
        raise UnsupportedError("expert_weights_scale is not supported for cohere2moe")
    dense = count_of(values.get("leading_dense_block_count"))
    found, rms = read_local(values, first=True), values.get("attention.layer_norm_rms_epsilon")
    return found | {
        **({"rms_norm_eps": rms} if rms else {}),  # counts before LayerNorm's, as in llama.cpp
        "expert_selection_fn": "sigmoid" if kind == SIGMOID else "softmax",
        "norm_topk_prob": normalized,
        "intermediate_size": values.get("expert_feed_forward_length"),
        "prefix_dense_intermediate_size": values.get("feed_forward_length"),
        "num_shared_experts": values.get("expert_shared_count", 0),
        "mlp_layer_types": [("sparse", "dense")[i < dense] for i in range(found["num_hidden_layers"])],
    }


def write_cohere(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_cohere` reads it; GGUF's readers take the mean of both kinds of experts."""
    experts, beside = mixture_of(model)
    if experts is None or config.get("rms_norm_eps") is not None:
        raise UnsupportedError("a Cohere without experts, or with RMSNorm, cannot be exported")
    first = model.layers[0].ffn
    wide = first.up.rows if isinstance(first, GatedMLP) else experts.width
    found = {
        "feed_forward_length": wide,
        "expert_feed_forward_length": experts.width,
        "expert_gating_func": SIGMOID if experts.sigmoid else SOFTMAX,
        "expert_weights_norm": experts.normalized,
        "leading_dense_block_count": first_dense(model, "cohere2moe"),
        **write_local(model, "cohere2moe"),
    }
    if beside:
        found |= {"expert_shared_count": beside // experts.width, "expert_shared_feed_forward_length": beside}
    return found


CHUNK = 8192  # positions, also of the steps in which queries grow: GGUF's readers know it
LARGE = 128  # experts of the Llama 4 that does not norm its heads


def read_llama4(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Every fourth layer sees all, and is not rotated."""
    chunk, every = values.get("attention.sliding_window"), values.get(PATTERN, 4)
    if chunk not in (None, CHUNK) or every != 4:
        raise UnsupportedError(f"chunks of {str(chunk)[:20]}, and {PATTERN} {str(every)[:20]}, are not supported")
    if values.get("rope.freq_base_swa", values.get("rope.freq_base")) != values.get("rope.freq_base"):
        raise UnsupportedError("rope.freq_base_swa is not supported")
    return {
        "intermediate_size": values.get("expert_feed_forward_length"),
        "intermediate_size_mlp": values.get("feed_forward_length"),
        "use_qk_norm": values.get("expert_count") != LARGE,
    }


def write_llama4(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_llama4` reads it. Without chunks GGUF's readers stumble."""
    mixers = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)]
    still = [not any(mixer.rope.inverse_frequencies) for mixer in mixers]
    usual = [(i + 1) % 4 == 0 for i in range(len(mixers))]
    if still != usual or model.windows != [None if here else CHUNK for here in usual]:
        raise UnsupportedError(f"GGUF's llama4 has chunks of {CHUNK} in all but every fourth layer")
    grown = (0.1, CHUNK)
    if any((m.rope.query_growth, m.rope.query_span) != grown for m, here in zip(mixers, still, strict=True) if here):
        raise UnsupportedError(f"GGUF's llama4 has attn_scale 0.1 and floor_scale {CHUNK}")
    experts, beside = mixture_of(model)
    every = count_of(config.get("interleave_moe_layer_step")) or 1
    where = [isinstance(layer.ffn, SharedMLP) for layer in model.layers]
    if experts is None or where != [(i + 1) % every == 0 for i in range(len(where))]:
        raise UnsupportedError("GGUF's llama4 has experts in the last of every interleave_moe_layer_step layers")
    if any(bool(m.norms) == (experts.num_experts == LARGE) for m, here in zip(mixers, still, strict=True) if not here):
        raise UnsupportedError(f"GGUF's llama4 norms heads unless it has {LARGE} experts")
    return {
        "attention.sliding_window": CHUNK,
        "feed_forward_length": config.get("intermediate_size_mlp", 16384),
        "expert_feed_forward_length": beside,
    }


def read_hy_v3(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Layers have experts where there is a router."""
    check_sigmoid(values)
    if values.get("expert_weights_norm", True) is not True:
        raise UnsupportedError("experts' weights are not normalized, which is not supported for hy_v3")
    further, wide = count_of(values.get(FURTHER_THERE)), count_of(values.get("expert_feed_forward_length"))
    layers = count_of(values.get("block_count")) - further
    routed = [f"blk.{i}.ffn_gate_inp.weight" in shapes for i in range(layers)]
    return {
        "num_hidden_layers": layers,
        "mlp_layer_types": [("dense", "sparse")[here] for here in routed],
        "num_shared_experts": count_of(values.get("expert_shared_feed_forward_length", wide)) // max(wide, 1),
        **({FURTHER: further} if further else {}),
    }


def write_hy_v3(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_hy_v3` reads it."""
    experts, beside = mixture_of(model)
    if experts is None:
        raise UnsupportedError("a Hunyuan 3 without experts cannot be exported")
    return {
        "expert_count": experts.num_experts,
        "expert_used_count": experts.top_k,
        "expert_feed_forward_length": experts.width,
        "expert_shared_feed_forward_length": beside,
        "expert_weights_scale": experts.factor,
        "expert_weights_norm": True,
        "expert_gating_func": SIGMOID,
    }


NEWER = {
    "jais2": GgufArchitecture(
        "jais2",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "relu2", "attention_bias": True, "mlp_bias": True},
    ),
    "hunyuan-moe": GgufArchitecture(
        "hunyuan_v1_moe",
        keys={"expert_count": "num_experts"},
        fixed={"hidden_act": "silu", "attention_bias": False},
        read=read_hunyuan,
        write=write_hunyuan,
    ),
    "minimax-m2": GgufArchitecture(
        "minimax_m2",
        keys=LOCAL_EXPERTS,
        fixed={"hidden_act": "silu"},
        assumed={"partial_rotary_factor": 1.0},
        read=read_minimax,
        write=write_minimax,
    ),
    "exaone-moe": GgufArchitecture(
        "exaone_moe",
        keys=EXPERTS
        | WINDOW
        | {
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_weights_scale": "routed_scaling_factor",
        },
        fixed={"hidden_act": "silu", "n_group": 1, "topk_group": 1},
        read=read_exaone,
        write=write_exaone,
    ),
    "cohere2moe": GgufArchitecture(
        "cohere2_moe",
        layer_norm="layer_norm_eps",
        keys=EXPERTS | WINDOW | {"logit_scale": "logit_scale"},
        fixed={
            "hidden_act": "silu",
            "attention_bias": False,
            "prefix_dense_sliding_window_pattern": 1,
            "shared_expert_combination_strategy": "average",
        },
        read=read_cohere,
        write=write_cohere,
    ),
    "llama4": GgufArchitecture(
        "llama4_text",
        keys=LOCAL_EXPERTS
        | {
            "attention.sliding_window": "attention_chunk_size",
            "interleave_moe_layer_step": "interleave_moe_layer_step",
        },
        fixed={"hidden_act": "silu", "attention_bias": False},
        read=read_llama4,
        write=write_llama4,
    ),
    "hy_v3": GgufArchitecture(
        "hy_v3",
        keys=EXPERTS
        | {
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_weights_scale": "router_scaling_factor",
        },
        fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        read=read_hy_v3,
        write=write_hy_v3,
        bare=("exp_probs_b",),
    ),
}
