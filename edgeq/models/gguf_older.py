"""BLOOM, MPT and OLMo 1 in GGUF: what no table says of their keys."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.gguf_hooks import Config, Shapes
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
