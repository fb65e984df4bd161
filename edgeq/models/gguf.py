"""GGUF's metadata as Hugging Face's `config.json`, and back: one row of a table per key, one entry per architecture."""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import architecture as architecture_of
from edgeq.models import llama

# GGUF's key after the architecture's name -> config.json's key
KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
REQUIRED = (
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"),
    "attention.layer_norm_rms_epsilon",
)
# Keys of the tokenizer that config.json repeats
TOKENS = {"tokenizer.ggml.bos_token_id": "bos_token_id", "tokenizer.ggml.eos_token_id": "eos_token_id"}


@dataclass(frozen=True)
class GgufArchitecture:
    """How one `general.architecture` is written in `config.json`.

    model_type    Hugging Face's name
    interleaved   rotary embedding turns neighbours (2i, 2i + 1) there, halves (i, i + n / 2) here: the rows of q and k
                  are in another order
    keys          GGUF's further keys -> config.json's
    fixed         keys that every such model has
    biases        config.json's key -> a tensor that is there if it is true
    derived       keys that follow from others, which GGUF's readers know by the model's size
    """

    model_type: str
    interleaved: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    biases: Mapping[str, str] = field(default_factory=dict)
    derived: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def _gemma(every: int, largest: int) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Every so many layers one is global. Scores are scaled by the head's size, in the model with the most layers by
    the residual stream's share of it."""

    def derive(config: Mapping[str, Any]) -> dict[str, Any]:
        share = config["hidden_size"] // config["num_attention_heads"]
        layers = config["num_hidden_layers"]
        kinds = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
        scalar = share if layers == largest else config.get("head_dim", 256)
        return {"query_pre_attn_scalar": scalar, "layer_types": kinds}

    return derive


def _smollm3(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every fourth layer has no rotary embedding."""
    return {"no_rope_layers": [int((i + 1) % 4 != 0) for i in range(config["num_hidden_layers"])]}


_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"}
_SPARSE = {"decoder_sparse_step": 1, "mlp_only_layers": []}
_NO_WINDOW = {"use_sliding_window": False}
_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_EXPERTS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
_MULTIPLIERS = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
ARCHITECTURES = {
    "llama": GgufArchitecture("llama", interleaved=True, biases=_BIASES),
    "qwen2": GgufArchitecture("qwen2", fixed=_NO_WINDOW),
    "qwen3": GgufArchitecture("qwen3", fixed={**_NO_WINDOW, "attention_bias": False}),
    "qwen3moe": GgufArchitecture(
        "qwen3_moe",
        keys=_EXPERTS | {"expert_feed_forward_length": "moe_intermediate_size"},
        fixed={**_NO_WINDOW, "attention_bias": False, "norm_topk_prob": True, **_SPARSE},
    ),
    "gemma": GgufArchitecture("gemma"),
    "gemma2": GgufArchitecture("gemma2", keys=_WINDOW | _CAPS, derived=_gemma(2, 46)),
    "gemma3": GgufArchitecture(
        "gemma3_text",
        keys=_WINDOW,
        fixed={"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        derived=_gemma(6, 62),
    ),
    "granite": GgufArchitecture("granite", interleaved=True, keys=_MULTIPLIERS, biases=_BIASES),
    "olmo2": GgufArchitecture("olmo2"),
    "olmoe": GgufArchitecture("olmoe", keys=_EXPERTS, fixed={"norm_topk_prob": False}),
    "smollm3": GgufArchitecture("smollm3", interleaved=True, fixed=_NO_WINDOW, derived=_smollm3),
}
# A Llama with experts
MIXTRAL = GgufArchitecture(
    "mixtral",
    interleaved=True,
    keys={"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
)
# Here -> GGUF: Mistral is a Llama there, whose window is not written
EXPORTED = {entry.model_type: name for name, entry in ARCHITECTURES.items()} | {"mistral": "llama", "mixtral": "llama"}

ROPE_FACTORS = "rope_freqs.weight"  # f32: divisors of the rotary frequencies
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}

Vector = Callable[[str], Sequence[float]]


def known(metadata: Mapping[str, Any], source: str) -> tuple[str, GgufArchitecture]:
    """`general.architecture` and its entry. UnsupportedError, with the known ones, for another."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnsupportedError(
            f"{source}: architecture {str(name)[:60]!r} cannot be imported; known are {', '.join(ARCHITECTURES)}"
        )
    return name, MIXTRAL if name == "llama" and metadata.get("llama.expert_count") else ARCHITECTURES[name]


def exported(model_type: str, source: str) -> tuple[str, GgufArchitecture]:
    """The `general.architecture` that holds a model of this type, and its entry. UnsupportedError if none does."""
    if model_type not in EXPORTED:
        raise UnsupportedError(f"{source}: {model_type} cannot be exported; supported are {', '.join(EXPORTED)}")
    name = EXPORTED[model_type]
    return name, MIXTRAL if model_type == "mixtral" else ARCHITECTURES[name]


def read_config(
    metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], vector: Vector, source: str
) -> dict[str, Any]:
    """`config.json` of a GGUF model.

    `shapes` are those of its tensors, `vector(name)` the values of one. Raises UnsupportedError for what cannot run
    here, FormatError for metadata that is missing or of another kind.
    """
    name, architecture = known(metadata, source)
    config: dict[str, Any] = {"model_type": architecture.model_type, **architecture.fixed}
    for suffix, key in {**KEYS, **architecture.keys}.items():
        value = metadata.get(f"{name}.{suffix}")
        if value is None and (suffix in REQUIRED or suffix in architecture.keys):
            raise FormatError(f"{source}: has no {name}.{suffix}: convert the model again")
        if value is not None:
            config[key] = _scalar(value, f"{name}.{suffix}", source)
    for suffix in ("expert_count", "attention.sliding_window"):
        if metadata.get(f"{name}.{suffix}") and suffix not in architecture.keys:
            raise UnsupportedError(f"{source}: {name}.{suffix} is not supported: take another model")
    embedding = shapes.get("token_embd.weight")
    if embedding is None or len(embedding) != 2:
        raise FormatError(f"{source}: has no matrix token_embd.weight: this is no whole model")
    if min(config["num_attention_heads"], config["hidden_size"]) < 1:
        raise FormatError(f"{source}: {name}.attention.head_count must be positive: convert the model again")
    # What leaving these out means to GGUF's readers, whatever it means in the architecture's config.json
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    config.setdefault("rope_theta", 10000.0)
    config["vocab_size"] = embedding[0]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config |= {key: tensor in shapes for key, tensor in architecture.biases.items()}
    config |= {key: _scalar(metadata[own], own, source) for own, key in TOKENS.items() if own in metadata}
    config |= architecture.derived(config) if architecture.derived else {}
    _read_rope(config, metadata, f"{name}.rope", shapes, vector, source)
    return config


def _scalar(value: Any, key: str, source: str) -> int | float:
    """A number; of a list all of whose numbers are equal, that one."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        value = value[0]
    if isinstance(value, list):
        raise UnsupportedError(f"{source}: {key} differs from layer to layer, which is not supported")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"{source}: {key} is {str(value)[:40]!r}, a number is needed: convert the model again")
    return shortest(value) if isinstance(value, float) else value


def shortest(value: float) -> float:
    """The shortest decimal that is the same f32: 1e-06, not 9.999999974752427e-07."""
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value


def _read_rope(
    config: dict[str, Any],
    metadata: Mapping[str, Any],
    prefix: str,
    shapes: Mapping[str, tuple[int, ...]],
    vector: Vector,
    source: str,
) -> None:
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rotated = metadata.get(f"{prefix}.dimension_count", head_dim)
    if rotated != head_dim:
        raise UnsupportedError(f"{source}: {rotated} of {head_dim} values per head are rotated: not supported")
    kind = metadata.get(f"{prefix}.scaling.type", "linear" if f"{prefix}.scale_linear" in metadata else "none")
    factor = metadata.get(f"{prefix}.scaling.factor", metadata.get(f"{prefix}.scale_linear", 1.0))
    if kind not in ("none", "linear", "yarn"):
        raise UnsupportedError(f"{source}: {prefix}.scaling.type {str(kind)[:40]!r} is not supported")
    factor = _scalar(factor, f"{prefix}.scaling.factor", source)
    if kind == "linear" and factor not in (0, 1):
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = metadata.get(f"{prefix}.scaling.original_context_length", config["max_position_embeddings"])
        scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        config["rope_scaling"] = scaling
    if ROPE_FACTORS in shapes:
        if "rope_scaling" in config:
            raise UnsupportedError(f"{source}: has {ROPE_FACTORS} and another rope scaling: not supported")
        config["rope_scaling"] = _scaling_of(vector(ROPE_FACTORS), config, head_dim, source)


def _scaling_of(
    factors: Sequence[float], config: Mapping[str, Any], head_dim: int, source: str
) -> dict[str, Any] | None:
    """The scaling whose divisors these are: Llama 3's, another one written out, or None for divisors that are all 1."""
    if len(factors) != head_dim // 2 or not all(0 < divisor < math.inf for divisor in factors):
        raise FormatError(f"{source}: {ROPE_FACTORS} is no list of {head_dim // 2} divisors: convert the model again")
    factor = max(factors)
    if factor == min(factors) == 1.0:
        return None
    scaling = {"rope_type": "llama3", "factor": shortest(factor), **_LLAMA3}
    expected = llama3_factors(scaling, config.get("rope_theta", 10000.0), head_dim)
    if all(abs(a - b) <= 1e-4 * abs(b) for a, b in zip(factors, expected, strict=True)):
        return scaling
    divisors = [shortest(divisor) for divisor in factors]
    return {"rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": divisors} | {
        "long_factor": divisors,
        "original_max_position_embeddings": config["max_position_embeddings"],
    }


def llama3_factors(scaling: Mapping[str, Any], theta: float, head_dim: int) -> list[float]:
    """Divisors of the rotary frequencies by Llama 3's scaling: `factor` for long wavelengths, 1 for short ones."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for i in range(head_dim // 2):
        turns = scaling["original_max_position_embeddings"] * theta ** (-2.0 * i / head_dim) / (2.0 * math.pi)
        blend = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1.0 / ((1.0 - blend) / scaling["factor"] + blend))
    return factors


def write_config(config: Mapping[str, Any], source: str, notes: list[str]) -> dict[str, Any]:
    """GGUF's metadata of a `config.json`; `notes` gets what it cannot say.

    Raises UnsupportedError for a configuration that GGUF's architecture does not have.
    """
    name, architecture = exported(str(config.get("model_type")), source)
    expected = dict(architecture.fixed) | (architecture.derived(config) if architecture.derived else {})
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise UnsupportedError(f"{source}: {key} is {str(config[key])[:40]}, GGUF's {name} has {value}")
    model = architecture_of(config, source)
    if not isinstance(model, llama.Model):
        raise UnsupportedError(f"{source}: {name} cannot be exported")
    keys = {**KEYS, **architecture.keys}
    values: dict[str, Any] = {key: config[own] for key, own in keys.items() if config.get(own) is not None}
    missing = [own for key, own in architecture.keys.items() if key not in values]
    if missing:
        raise UnsupportedError(f"{source}: its config.json does not say {missing[0]}, which GGUF's {name} needs")
    head_dim = model.heads.head_dim
    values |= {"attention.key_length": head_dim, "attention.value_length": head_dim, "rope.dimension_count": head_dim}
    values["context_length"] = model.max_position_embeddings
    values["attention.head_count_kv"] = model.heads.num_key_value_heads
    values["attention.layer_norm_rms_epsilon"] = model.norm_eps
    scaling = _scaling(config)
    if "sliding_attention" in scaling:
        raise UnsupportedError(f"{source}: rope parameters by kind of layer cannot be exported")
    values["rope.freq_base"] = float(scaling.get("rope_theta", config.get("rope_theta", model.theta)))
    values["vocab_size"] = config["vocab_size"]
    window = config.get("sliding_window", 4096) if config["model_type"] == "mistral" else None
    if "attention.sliding_window" not in keys:
        window = window or (config.get("sliding_window") if config["model_type"] == "mixtral" else None)
    if window and window < config.get("max_position_embeddings", 2048):
        notes.append(f"GGUF has no sliding window for this architecture: the context is its {window} positions")
        values["context_length"] = window
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.get("factor", 1.0))}
    elif kind not in ("default", "llama3") and rope_factors(config) is None:
        raise UnsupportedError(f"{source}: rope scaling {str(kind)[:40]!r} cannot be exported")
    return {f"{name}.{key}": value for key, value in values.items()}


def rope_factors(config: Mapping[str, Any]) -> list[float] | None:
    """The values of `rope_freqs.weight`, which is how GGUF has Llama 3's scaling; None for a model without it."""
    scaling = _scaling(config)
    written = scaling.get("short_factor")
    if written and written == scaling.get("long_factor") and scaling.get("attention_factor") == 1.0:
        return [float(divisor) for divisor in written]
    if scaling.get("rope_type", scaling.get("type")) != "llama3":
        return None
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    usual = {"factor": 8.0, **_LLAMA3, **scaling}
    return llama3_factors(usual, float(scaling.get("rope_theta", config.get("rope_theta", 10000.0))), head_dim)


def _scaling(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}
