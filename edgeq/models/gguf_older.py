"""Decoders from before all had RMSNorm and gated MLPs, as GGUF writes them."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models import gpt2
from edgeq.models.composition import Model
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import Config, Shapes
from edgeq.models.layers import Parallel
from edgeq.models.mixers import Attention

BLOOM_NAMES = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "seq_length",
}
MPT_NAMES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "max_position_embeddings": "max_seq_len",
}


def read_stablelm(values: Mapping[str, Any], shapes: Shapes) -> Config:
    return {"use_parallel_residual": "blk.0.ffn_norm.weight" not in shapes}


def read_neox(values: Mapping[str, Any], shapes: Shapes) -> Config:
    return {"use_parallel_residual": bool(values.get("use_parallel_residual", True))}


def write_parallel(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"use_parallel_residual": isinstance(model.layers[0].norms, Parallel)}


def read_falcon(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """7B has one key/value head; 40B two norms; 11B neither."""
    newer = values.get("attention.head_count_kv", 1) != 1
    norms = {"num_ln_in_parallel_attn": 2 if "blk.0.attn_norm_2.weight" in shapes else 1} if newer else {}
    return {"new_decoder_architecture": newer, "multi_query": not newer, **norms}


def write_falcon(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    newer = bool(config.get("new_decoder_architecture", False))
    if not newer and model.heads.num_key_value_heads != 1:
        raise UnsupportedError("a Falcon of the older layout with several key/value heads cannot be exported")
    return {"tensor_data_layout": "jploski"}


def read_mpt(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """Without ALiBi there would be embeddings of positions; a limit of 0 is none."""
    most, clip = values.get("attention.max_alibi_bias") or 0, values.get("attention.clamp_kqv") or None
    wide, n = values.get("feed_forward_length"), values.get("embedding_length")
    if not isinstance(wide, int) or not isinstance(n, int) or n < 1 or wide % n:
        raise UnsupportedError(f"an MLP {str(wide)[:20]} wide is no multiple of {str(n)[:20]}, which mpt needs")
    attention = {"alibi": bool(most), "alibi_bias_max": most, "clip_qkv": clip}
    return {"attn_config": attention, "expansion_ratio": wide // n}


def write_mpt(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's readers scale scores by the head's size."""
    if model.heads.scale:
        raise UnsupportedError("an MPT with a softmax_scale cannot be exported")
    most = (config.get("attn_config") or {}).get("alibi_bias_max", 8)
    return {"attention.max_alibi_bias": float(most), **_clip(model)}


def read_olmo(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """A limit of 0 is none; the norms have the same epsilon everywhere."""
    if abs(float(values.get("attention.layer_norm_epsilon") or 0) - 1e-5) > 1e-9:
        raise UnsupportedError("norms with another epsilon than 1e-5 are not supported for olmo")
    return {"clip_qkv": values.get("attention.clamp_kqv") or None}


def write_olmo(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read_olmo` reads it."""
    return _clip(model)


def _clip(model: Model) -> dict[str, Any]:
    """What queries, keys and values are held within."""
    clip = model.attention.clip if isinstance(model.attention, Attention) else 0.0
    return {"attention.clamp_kqv": clip} if clip else {}


OLDER = {
    "gpt2": GgufArchitecture(
        "gpt2",
        layer_norm="layer_norm_epsilon",
        names=gpt2.NAMES,
        fixed={"activation_function": "gelu_new"},
        fused=("attn_qkv",),
    ),
    "gptneox": GgufArchitecture(
        "gpt_neox",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu", "attention_bias": True},
        assumed={"partial_rotary_factor": 1.0},
        read=read_neox,
        write=write_parallel,
        fused=("attn_qkv",),
    ),
    "falcon": GgufArchitecture(
        "falcon",
        layer_norm="layer_norm_epsilon",
        names={"num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"},
        fixed={"activation": "gelu", "bias": False, "alibi": False, "parallel_attn": True},
        read=read_falcon,
        write=write_falcon,
        fused=("attn_qkv",),
        renamed={"ffn_norm": "attn_norm", "attn_norm": "attn_norm_2"},
    ),
    "stablelm": GgufArchitecture(
        "stablelm",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "silu"},
        assumed={"partial_rotary_factor": 1.0},
        biases={"use_qkv_bias": "blk.0.attn_q.bias", "qk_layernorm": "blk.0.attn_q_norm.weight"},
        vectors=("attn_q_norm", "attn_k_norm"),
        read=read_stablelm,
        write=write_parallel,
    ),
    "phi2": GgufArchitecture(
        "phi",
        layer_norm="layer_norm_eps",
        fixed={"hidden_act": "gelu_new"},
        assumed={"partial_rotary_factor": 1.0},
    ),
    "starcoder": GgufArchitecture(
        "gpt_bigcode",
        layer_norm="layer_norm_epsilon",
        names=gpt2.NAMES,
        fixed={"activation_function": "gelu_pytorch_tanh", "multi_query": True},
        fused=("attn_qkv",),
    ),
    "starcoder2": GgufArchitecture(
        "starcoder2",
        layer_norm="norm_epsilon",
        fixed={"hidden_act": "gelu_pytorch_tanh", "use_bias": True},
    ),
    "bloom": GgufArchitecture(
        "bloom",
        layer_norm="layer_norm_epsilon",
        names=BLOOM_NAMES,
        fixed={"apply_residual_connection_post_layernorm": False},
        fused=("attn_qkv",),
    ),
    "mpt": GgufArchitecture(
        "mpt",
        layer_norm="layer_norm_epsilon",
        names=MPT_NAMES,
        fixed={"no_bias": True},
        read=read_mpt,
        write=write_mpt,
        fused=("attn_qkv",),
    ),
    "olmo": GgufArchitecture(
        "olmo",
        layer_norm="layer_norm_epsilon",
        interleaved=True,
        fixed={"hidden_act": "silu", "attention_bias": False},
        read=read_olmo,
        write=write_olmo,
    ),
}
