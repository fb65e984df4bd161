"""Latent attention in GGUF: one architecture, deepseek2, for DeepSeek-V2, for those whose experts sigmoids choose, and
for those without experts; and MiniCPM3's. This, and older files of the other, have keys and values in one tensor."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import gguf_mixtures
from edgeq.models.composition import Model
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import Config, Shapes, count_of
from edgeq.models.gguf_places import KV_B, OF_KEYS, OF_VALUES
from edgeq.models.latent_attention import LatentAttention
from edgeq.models.matrix import FURTHER

SOFTMAX = 1  # GGUF's number of it
_LATENT = "_mla"  # behind keys of what heads have; files without these have all heads' keys and values in one tensor
GLM_FLASH = 154880  # tokens of the model whose older files do not say that sigmoids choose
OF_HEADS = (OF_KEYS, OF_VALUES)  # matrices here, with an axis for the heads there
_WOVEN = {KV_B: OF_HEADS}


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Sizes of heads. What follows the last layer guesses further tokens."""
    heads, turned = (count_of(values.get(key)) for key in ("attention.head_count", "rope.dimension_count"))
    lengths = [f"attention.{one}_length" for one in ("key", "value")]
    key, value = (count_of(values.get(f"{length}{_LATENT}", values.get(length))) for length in lengths)
    if not (heads and 0 < turned < key):
        sizes = [heads, key, turned]
        raise FormatError(f"heads, their keys and what of these is rotated are {sizes}: convert the model again")
    layers, further = values["block_count"], values.get("nextn_predict_layers", 0)
    if not isinstance(further, int) or not 0 <= further < layers:
        raise FormatError(f"nextn_predict_layers is {str(further)[:20]}, of {layers} layers: convert the model again")
    return {
        "num_key_value_heads": heads,
        "head_dim": turned,  # what the rotary embedding is of
        "qk_rope_head_dim": turned,
        "qk_nope_head_dim": key - turned,
        "v_head_dim": value or count_of(values.get("embedding_length")) // heads,
        "q_lora_rank": values.get("attention.q_lora_rank"),
        "num_hidden_layers": layers - further,
        **({FURTHER: further} if further else {}),
    }


def read_sigmoids(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """With experts as DeepSeek-V3's."""
    return read(values, shapes) | gguf_mixtures.read(values, shapes)


def read_softmax(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """With experts as DeepSeek-V2's."""
    if values.get("expert_group_count", 1) != 1 or values.get("expert_weights_norm", False):
        raise UnsupportedError("experts in groups, or weights that are normalized, are not supported for deepseek_v2")
    return read(values, shapes)


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read` reads it."""
    attention, heads = model.attention, model.heads
    assert isinstance(attention, LatentAttention)
    if not model.rope.interleaved:
        raise UnsupportedError("rotated parts that turn in halves cannot be exported")
    rank = config.get("q_lora_rank")
    return {
        "attention.value_length": heads.latent,
        "attention.key_length_mla": attention.key_dim + heads.head_dim - heads.latent,
        "attention.value_length_mla": attention.value_dim,
        **({} if rank is None else {"attention.q_lora_rank": rank}),
    }


def write_sigmoids(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_sigmoids` reads it."""
    return write(model, config) | gguf_mixtures.write(model, config)


def write_softmax(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_softmax` reads it."""
    return write(model, config) | {"expert_gating_func": SOFTMAX, "expert_weights_norm": False}


def write_dense(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """All layers are dense; GGUF's readers ask for what experts have all the same."""
    experts = {"expert_feed_forward_length": model.size.intermediate_size, "expert_shared_count": 0}
    return write(model, config) | {"leading_dense_block_count": model.num_hidden_layers, **experts}


def write_minicpm3(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """Each head has its keys and values there."""
    attention, heads = model.attention, model.heads
    assert isinstance(attention, LatentAttention)
    return {
        "attention.head_count_kv": heads.num_attention_heads,
        "attention.key_length": attention.key_dim + heads.head_dim - heads.latent,
        "attention.value_length": attention.value_dim,
    }


_KEYS = {"attention.kv_lora_rank": "kv_lora_rank"}
_FIXED = {"hidden_act": "silu", "attention_bias": False}
_EXPERTS = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_SIGMOIDS = GgufArchitecture(
    "deepseek_v3", keys=_KEYS | _EXPERTS, fixed=_FIXED, read=read_sigmoids, write=write_sigmoids, vectors=OF_HEADS
)
_SOFTMAX = GgufArchitecture(
    "deepseek_v2", keys=_KEYS | _EXPERTS, fixed=_FIXED, read=read_softmax, write=write_softmax, vectors=OF_HEADS
)
_DENSE = GgufArchitecture("youtu", keys=_KEYS, fixed=_FIXED, read=read, write=write_dense, vectors=OF_HEADS)
# Its factors are not in the file: readers know them
_MINICPM3 = GgufArchitecture(
    "minicpm3",
    keys=_KEYS | {"attention.q_lora_rank": "q_lora_rank"},
    fixed=_FIXED | {"mlp_bias": False, "scale_emb": 12.0, "scale_depth": 1.4, "dim_model_base": 256},
    read=read,
    write=write_minicpm3,
    woven=_WOVEN,
)
LATENTS = {"deepseek2": _SIGMOIDS, "minicpm3": _MINICPM3}
BY_TYPE = {"deepseek_v3": _SIGMOIDS, "deepseek_v2": _SOFTMAX, "glm4_moe_lite": _SIGMOIDS, "youtu": _DENSE}


def entry_of(metadata: Mapping[str, Any]) -> GgufArchitecture:
    """That of a deepseek2 with these keys."""
    if f"deepseek2.attention.key_length{_LATENT}" not in metadata:
        return replace(_entry_of(metadata), woven=_WOVEN, vectors=(), older=True)
    return _entry_of(metadata)


def _entry_of(metadata: Mapping[str, Any]) -> GgufArchitecture:
    """That of a newer one."""
    if not metadata.get("deepseek2.expert_count"):
        return _DENSE
    unsaid = gguf_mixtures.SIGMOID if metadata.get("deepseek2.vocab_size") == GLM_FLASH else SOFTMAX
    return _SOFTMAX if metadata.get("deepseek2.expert_gating_func", unsaid) == SOFTMAX else _SIGMOIDS


def read_scaling(multiplier: float) -> dict[str, float]:
    """What a yarn scaling has beside the usual: scores grow, cosines and sines do not."""
    growth = round(10 * multiplier, 6)
    return {"mscale": growth, "mscale_all_dim": growth}


def write_scaling(model: Model, scaling: Mapping[str, Any]) -> dict[str, float] | None:
    """The same by GGUF's key; None where the scaling is another one."""
    growth = scaling.get("mscale_all_dim")
    if not model.heads.latent or not growth or scaling.get("attention_factor"):
        return None
    alike = math.isclose(growth, scaling.get("mscale") or 0.0)
    return {"rope.scaling.yarn_log_multiplier": 0.1 * float(growth)} if alike else None
