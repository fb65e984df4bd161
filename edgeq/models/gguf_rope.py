"""Rotary embeddings in GGUF's metadata: scalings are keys, or vectors of divisors of the frequencies."""

import math
import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models import gguf_gemma4, gguf_latents
from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.gguf_hooks import Shapes
from edgeq.models.rope_scaling import rope_parameters

# f32 vectors: divisors of the rotary frequencies, in all sessions, or in short and in long ones
ROPE_FACTORS = "rope_freqs.weight"
# Architectures whose readers take such a tensor, or one for long and one for short sessions
WITH_FACTORS = {"apertus", "arcee", "deci", "exaone", "exaone-moe", "exaone4", "falcon-h1", "gemma4", "granite"}
WITH_FACTORS |= {"granite_swa", "granitehybrid", "granitemoe", "llama", "llama4", "minicpm", "minicpm3", "mistral3"}
WITH_FACTORS |= {"phi3", "phimoe"}
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_RAMP = {"beta_fast": ("yarn_beta_fast", 32.0), "beta_slow": ("yarn_beta_slow", 1.0)}

# Ministral 3's further keys
GROWING = {"rope.scaling.yarn_log_multiplier": "mscale_all_dim", "attention.temperature_scale": "llama_4_scaling_beta"}

LARGEST_F32 = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]

Vector = Callable[[str], Sequence[float]]


def number(value: Any, key: str, source: str) -> int | float:
    """A number; of a list all of whose numbers are equal, that one."""
    if isinstance(value, list | array) and value and all(item == value[0] for item in value):
        value = value[0]
    if isinstance(value, list | array):
        raise UnsupportedError(f"{source}: {key} differs from layer to layer, which is not supported")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"{source}: {key} is {str(value)[:40]!r}, a number is needed: convert the model again")
    return shortest(value) if isinstance(value, float) else value


def shortest(value: float) -> float:
    """The shortest decimal that is the same f32: 1e-06, not 9.999999974752427e-07; what is no f32 stays as it is."""
    if not abs(value) <= LARGEST_F32:
        return value
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value


def rotated(model: Model) -> int:
    """Values of a head that are rotated."""
    return 2 * len(model.rope.inverse_frequencies)


# ---- GGUF to config.json ----


def read_rope(
    config: dict[str, Any], values: Mapping[str, Any], prefix: str, shapes: Shapes, vector: Vector, source: str
) -> None:
    """Put the rotary embedding that `values`, by their keys after the architecture's name, describe into `config`."""
    head_dim = config["head_dim"]
    turned = values.get("rope.dimension_count", head_dim)
    if not isinstance(turned, int) or turned % 2 or not 0 < turned <= head_dim:
        raise UnsupportedError(f"{source}: {str(turned)[:20]} of {head_dim} values per head are rotated: not supported")
    if turned != head_dim:
        # The quotient may be a little too small for int(head_dim * quotient)
        part = turned / head_dim
        config["partial_rotary_factor"] = part if int(head_dim * part) == turned else math.nextafter(part, 1.0)
    kind = values.get("rope.scaling.type", "linear")  # which GGUF's readers take a factor without a type for
    factor = values.get("rope.scaling.factor", values.get("rope.scale_linear", 1.0))
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedError(f"{source}: {prefix}.scaling.type {str(kind)[:40]!r} is not supported")
    factor = number(factor, f"{prefix}.scaling.factor", source)
    if kind == "linear" and factor not in (0, 1):
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        config["rope_scaling"] = _read_yarn(values, factor, config["max_position_embeddings"], prefix, source)
    if ROPE_FACTORS in shapes:
        if kind == "yarn":
            raise UnsupportedError(f"{source}: has {ROPE_FACTORS} and a yarn scaling: not supported")
        linear = config.setdefault("rope_scaling", None)
        divisors = _divisors(ROPE_FACTORS, vector, turned, source)
        if min(divisors) != 1.0 or max(divisors) != 1.0:
            further = linear["factor"] if linear else 1.0  # both divide
            config["rope_scaling"] = _scaling_of([divisor * further for divisor in divisors], config, turned)
    if LONG in shapes and SHORT in shapes:
        original = values.get("rope.scaling.original_context_length", config["max_position_embeddings"])
        config["rope_scaling"] = {
            "rope_type": "longrope",
            "short_factor": [shortest(divisor) for divisor in _divisors(SHORT, vector, turned, source)],
            "long_factor": [shortest(divisor) for divisor in _divisors(LONG, vector, turned, source)],
            "attention_factor": number(values.get("rope.scaling.attn_factor", 1.0), f"{prefix}.scaling", source),
        }
        config["original_max_position_embeddings"] = number(original, f"{prefix}.scaling", source)


def _read_yarn(values: Mapping[str, Any], factor: float, context: int, prefix: str, source: str) -> dict[str, Any]:
    original = values.get("rope.scaling.original_context_length", context)
    scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    for key, (suffix, usual) in _RAMP.items():
        value = number(values.get(f"rope.scaling.{suffix}", usual), f"{prefix}.scaling.{suffix}", source)
        scaling |= {key: value} if value != usual else {}
    for suffix, key in GROWING.items():
        if given := values.get(suffix):
            if prefix == "deepseek2.rope" and key == "mscale_all_dim":
                return scaling | gguf_latents.read_scaling(number(given, suffix, source))
            if prefix != "mistral3.rope":
                raise UnsupportedError(f"{source}: {prefix.removesuffix('rope')}{suffix} is not supported")
            scaling[key] = number(given, suffix, source)
    return scaling | ({"mscale": 1.0} if "mscale_all_dim" in scaling else {})


def _divisors(name: str, vector: Vector, turned: int, source: str) -> Sequence[float]:
    factors = vector(name)
    if len(factors) != turned // 2 or not all(0 < divisor < math.inf for divisor in factors):
        raise FormatError(f"{source}: {name} is no list of {turned // 2} divisors: convert the model again")
    return factors


def _scaling_of(factors: Sequence[float], config: Mapping[str, Any], turned: int) -> dict[str, Any]:
    """The scaling whose divisors these are: Llama 3's, or another one written out."""
    scaling = {"rope_type": "llama3", "factor": shortest(max(factors)), **_LLAMA3}
    expected = llama3_factors(scaling, config.get("rope_theta", 10000.0), turned)
    if all(abs(a - b) <= 1e-4 * abs(b) for a, b in zip(factors, expected, strict=True)):
        return scaling
    divisors = [shortest(divisor) for divisor in factors]
    return {"rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": divisors} | {
        "long_factor": divisors,
        "original_max_position_embeddings": config["max_position_embeddings"],
    }


def llama3_factors(scaling: Mapping[str, Any], theta: float, turned: int) -> list[float]:
    """Divisors of the rotary frequencies by Llama 3's scaling: `factor` for long wavelengths, 1 for short ones."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for i in range(turned // 2):
        turns = scaling["original_max_position_embeddings"] * theta ** (-2.0 * i / turned) / (2.0 * math.pi)
        blend = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1.0 / ((1.0 - blend) / scaling["factor"] + blend))
    return factors


# ---- config.json to GGUF ----


def write_rope(values: dict[str, Any], model: Model, config: Mapping[str, Any], theta: float, source: str) -> None:
    """Add the keys of the model's rotary embedding to `values`; `theta` where the scaling does not say another."""
    scaling = scaling_of(config)
    if not rotated(model):
        return
    if "rope.freq_base_swa" not in values:
        _check_local(config, scaling, source)
    values["rope.freq_base"] = float(scaling.get("rope_theta", theta))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.get("factor", 1.0))}
    elif kind == "dynamic" and scaling.get("alpha"):  # Hunyuan's larger theta
        values["rope.freq_base"] *= float(scaling["alpha"]) ** (rotated(model) / (rotated(model) - 2))
    elif kind == "yarn" and (
        _usual_attention(scaling) or _growing(config, scaling) or gguf_latents.write_scaling(model, scaling)
    ):
        original = scaling.get("original_max_position_embeddings", model.max_position_embeddings)
        factor = float(scaling.get("factor") or model.max_position_embeddings / original)
        values |= {"rope.scaling.type": "yarn", "rope.scaling.factor": factor}
        values["rope.scaling.original_context_length"] = original
        for key, (suffix, usual) in _RAMP.items():
            if scaling.get(key, usual) != usual:
                values[f"rope.scaling.{suffix}"] = float(scaling[key])
        if _growing(config, scaling):
            values |= {suffix: float(scaling[key]) for suffix, key in GROWING.items() if scaling.get(key)}
        values |= gguf_latents.write_scaling(model, scaling) or {}
    elif kind != "default" and not factor_tensors(config):
        raise UnsupportedError(f"{source}: rope scaling {str(kind)[:40]!r} cannot be exported")
    if _two_lists(config):
        values["rope.scaling.attn_factor"] = model.rope.attention_factor
        values["rope.scaling.original_context_length"] = model.rope.short_context


def _growing(config: Mapping[str, Any], scaling: Mapping[str, Any]) -> bool:
    """Whether it is Ministral 3's."""
    return config.get("model_type") == "ministral3" and scaling.get("mscale", 1.0) == 1.0


def _usual_attention(scaling: Mapping[str, Any]) -> bool:
    """Whether a yarn scaling's attention factor is the one that follows from its factor."""
    if {"mscale", "mscale_all_dim"} & scaling.keys():
        return False
    factor, given = scaling.get("factor") or 1.0, scaling.get("attention_factor")
    return given is None or abs(float(given) - (0.1 * math.log(float(factor)) + 1.0)) < 1e-6


def _check_local(config: Mapping[str, Any], scaling: Mapping[str, Any], source: str) -> None:
    """UnsupportedError for local layers with a rotary embedding that GGUF's readers do not expect: Gemma's turn by
    10000, others as the global ones without their scaling do."""
    parameters = config.get("rope_parameters")
    local = parameters.get("sliding_attention") if isinstance(parameters, Mapping) else None
    if local is None:
        return
    usual = 10000.0 if config.get("model_type") == "gemma3_text" else scaling.get("rope_theta")
    if local.get("rope_type", "default") != "default" or local.get("rope_theta", usual) != usual:
        raise UnsupportedError(f"{source}: rope parameters by kind of layer cannot be exported")


def factor_tensors(config: Mapping[str, Any], model: Model | None = None) -> dict[str, list[float]]:
    """The vectors that say what keys cannot."""
    scaling = scaling_of(config)
    if model and model.name == "gemma4_text":
        return {ROPE_FACTORS: gguf_gemma4.divisors(model)}
    if _two_lists(config):
        lists = {LONG: scaling["long_factor"], SHORT: scaling["short_factor"]}
        return {name: [float(divisor) for divisor in found] for name, found in lists.items()}
    divisors = rope_factors(config)
    return {ROPE_FACTORS: divisors} if divisors else {}


def check_factors(name: str, config: Mapping[str, Any], source: str) -> None:
    """UnsupportedError for a scaling that divides each frequency by its own, of an architecture whose readers stumble
    over such tensors."""
    if name not in WITH_FACTORS and factor_tensors(config):
        kind = scaling_of(config).get("rope_type", scaling_of(config).get("type"))
        raise UnsupportedError(f"{source}: rope scaling {str(kind)[:40]!r} cannot be exported: GGUF's {name} has none")


def _two_lists(config: Mapping[str, Any]) -> bool:
    """Whether short and long sessions have divisors of their own: of Llama's kin all sessions have the same."""
    return config.get("model_type") in ("phi3", "minicpm3") and bool(scaling_of(config).get("long_factor"))


def rope_factors(config: Mapping[str, Any]) -> list[float] | None:
    """The values of `rope_freqs.weight`, which is how GGUF has Llama 3's scaling; None for a model without it."""
    scaling = scaling_of(config)
    written = scaling.get("short_factor")
    if written and written == scaling.get("long_factor") and scaling.get("attention_factor") == 1.0:
        return [float(divisor) for divisor in written]
    if scaling.get("rope_type", scaling.get("type")) != "llama3":
        return None
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    usual = {"factor": 8.0, **_LLAMA3, **scaling}
    return llama3_factors(usual, float(scaling.get("rope_theta", config.get("rope_theta", 10000.0))), head_dim)


def scaling_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of its rope scaling, that of global layers; a key that is null says nothing."""
    return rope_parameters(Config(config, "config.json"))
