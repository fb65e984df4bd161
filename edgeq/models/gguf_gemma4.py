"""Gemma 4 in GGUF: sizes of local layers have keys of their own, and readers know whose keys the last layers see."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models.composition import Model
from edgeq.models.config import Config as ModelConfig
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.gguf_hooks import Config, Shapes
from edgeq.models.mixers import Attention
from edgeq.models.per_layer import TABLE
from edgeq.models.rope_scaling import rope_parameters
from edgeq.ops import Heads

UNTURNED = 1e30  # the divisor of a frequency that is 0
LOCAL_THETA = 10000.0


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """What GGUF says of each layer, and what its tensors say."""
    layers, local = values.get("block_count"), values.get("attention.sliding_window_pattern")
    if not isinstance(layers, int) or not isinstance(local, list) or len(local) != layers:
        raise FormatError("gemma4.attention.sliding_window_pattern does not say which layers are local: convert again")
    kinds = ["sliding_attention" if each else "full_attention" for each in local]
    first, wide = layers - values.get("attention.shared_kv_layers", 0), values["feed_forward_length"]
    keys, own = values.get("attention.head_count_kv"), {}
    counts = keys if isinstance(keys, list) and len(keys) == layers else [keys] * layers
    usual = next((count for count, kind in zip(counts, kinds, strict=True) if kind != "full_attention"), counts[-1])
    for i, kind in enumerate(kinds):
        if kind == "full_attention":
            own[str(i)] = {"head_dim": values.get("attention.key_length"), "num_key_value_heads": counts[i]}
    whole = [i for i, kind in enumerate(kinds[:first]) if kind == "full_attention"]
    twice = bool(whole) and f"blk.{whole[0]}.attn_v.weight" not in shapes
    config = {
        "layer_types": kinds,
        "head_dim": values.get("attention.key_length_swa"),
        "num_key_value_heads": usual,
        "per_layer_config": own,
        "attention_k_eq_v": twice and f"blk.{whole[0]}.attn_qkv.weight" not in shapes,
        "use_double_wide_mlp": isinstance(wide, list) and wide[-1] == 2 * wide[0],
        "vocab_size_per_layer_input": shapes.get(f"{TABLE}.weight", (262144,))[0],
    }
    if "blk.0.ffn_gate_inp.weight" in shapes:
        config |= {"enable_moe_block": True, "num_experts": values.get("expert_count")}
        config |= {"top_k_experts": values.get("expert_used_count")}
        config |= {"moe_intermediate_size": values.get("expert_feed_forward_length")}
    return config


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """UnsupportedError for layers whose keys, heads or widths GGUF's readers would take for others."""
    mixers = [layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)]
    windows = [mixer.heads.sliding_window for mixer in mixers]
    local, whole = (
        _alike([m.heads for m, w in zip(mixers, windows, strict=True) if bool(w) is is_local])
        for is_local in (True, False)
    )
    shared = sum(mixer.reads is not None for mixer in mixers)
    first = len(mixers) - shared
    for i, mixer in enumerate(mixers):
        if mixer.reads is not None and mixer.reads != first - (2 if windows[i] else 1):
            raise UnsupportedError(f"layer {i} sees the keys of layer {mixer.reads}, GGUF has another place for it")
    if not (local and whole):
        raise UnsupportedError("GGUF's gemma4 has local layers and others, this model has one kind")
    counts = [mixer.heads.num_key_value_heads for mixer in mixers]
    values: dict[str, Any] = {
        "attention.key_length": whole.head_dim,
        "attention.value_length": whole.head_dim,
        "attention.key_length_swa": local.head_dim,
        "attention.value_length_swa": local.head_dim,
        "attention.sliding_window_pattern": [bool(window) for window in windows],
        "attention.head_count_kv": counts if len(set(counts)) > 1 else counts[0],
    }
    widths = [_mlp(layer.ffn).gate.rows for layer in model.layers]
    if len(set(widths)) > 1:
        values["feed_forward_length"] = widths
    per_layer = model.around.embedding if model.around else None
    if per_layer and per_layer.rows != model.vocab_size:
        raise UnsupportedError(f"its second embedding has {per_layer.rows} rows, there are {model.vocab_size} tokens")
    values["embedding_length_per_layer_input"] = per_layer.width if per_layer else 0
    if config.get("enable_moe_block"):
        values |= {"expert_count": config["num_experts"], "expert_used_count": config["top_k_experts"]}
        values |= {"expert_feed_forward_length": config["moe_intermediate_size"]}
    return values


def _mlp(ffn: Any) -> GatedMLP:
    """That of a layer, beside experts if it has such."""
    mlp = getattr(ffn, "mlp", ffn)
    assert isinstance(mlp, GatedMLP)
    return mlp


def _alike(heads: Sequence[Heads]) -> Heads | None:
    """Those of layers of a kind, None where there are none. UnsupportedError for heads of several sizes."""
    if len({each.head_dim for each in heads}) > 1:
        raise UnsupportedError("heads differ between layers of a kind, which GGUF cannot say")
    return heads[0] if heads else None


def read_rope(config: dict[str, Any], values: Mapping[str, Any], divisors: Sequence[float]) -> None:
    """Of global layers the part of a head that turns is told by divisors: the others' are very large."""
    turning = sum(divisor == 1.0 for divisor in divisors)
    if not turning or any(divisor < UNTURNED / 10 for divisor in divisors[turning:]):
        raise UnsupportedError("rope_freqs.weight is not as Gemma 4's: not supported")
    config["rope_parameters"] = {
        "full_attention": {
            "rope_type": "proportional",
            "partial_rotary_factor": turning / len(divisors),
            "rope_theta": config.pop("rope_theta"),
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": values.get("rope.freq_base_swa", LOCAL_THETA)},
    }


def write_rope(values: dict[str, Any], model: Model, config: Mapping[str, Any]) -> None:
    """Add the keys of both rotary embeddings to `values`."""
    every = {
        kind: rope_parameters(ModelConfig(config, "config.json"), kind)
        for kind in ("full_attention", "sliding_attention")
    }
    whole, local = every.values()
    if whole.get("rope_type") != "proportional" or whole.get("factor", 1.0) != 1.0:
        raise UnsupportedError("a rotary embedding of global layers that is scaled cannot be exported")
    if local.get("rope_type", "default") != "default" or local.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError("a rotary embedding of local layers that is scaled cannot be exported")
    values["rope.freq_base"] = float(whole.get("rope_theta", 1000000.0))
    values["rope.freq_base_swa"] = float(local.get("rope_theta", LOCAL_THETA))
    values["rope.dimension_count"] = values["attention.key_length"]
    values["rope.dimension_count_swa"] = values["attention.key_length_swa"]


def divisors(model: Model) -> list[float]:
    """The values of `rope_freqs.weight`."""
    return [1.0 if frequency else UNTURNED for frequency in model.rope.inverse_frequencies]
