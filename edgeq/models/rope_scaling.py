"""The forms that rotary position embedding comes in, read from `config.json`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.models.config import Config, shown
from edgeq.ops import Rope

SUPPORTED = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "proportional")


def rope(
    config: Config, head_dim: int, partial: float = 1.0, theta: float = 10000.0, kind: str = "full_attention"
) -> Rope:
    """The rotary embedding of heads of `head_dim` values.

    `partial` (the part of a head that is rotated) and `theta` are the architecture's defaults. Raises UnsupportedError
    for an unknown scaling, CheckpointError for one that is malformed.
    """
    scaling = config.within(rope_parameters(config, kind))
    theta = (scaling if "rope_theta" in scaling else config).number("rope_theta", theta)
    key = "partial_rotary_factor"
    partial = (scaling if key in scaling else config).number(key, partial)
    name = scaling_type(scaling.values)
    if name == "proportional":
        return _proportional(head_dim, partial, theta, scaling)
    rotated = int(head_dim * partial)
    if rotated % 2 or not 0 < rotated <= head_dim:
        raise config.malformed(f"{rotated} of {head_dim} values per head are rotated, needed is an even part")
    frequencies = tuple(theta ** (-2.0 * i / rotated) for i in range(rotated // 2))
    if name == "default":
        return Rope(frequencies)
    if name == "linear":
        factor = scaling.number("factor", 1.0)
        return Rope(tuple(frequency / factor for frequency in frequencies))
    trained = config.integer("max_position_embeddings", 2048)
    if name == "dynamic":
        factor = scaling.number("factor", 1.0)
        return Rope(frequencies, short_context=trained, dynamic_factor=factor)
    if name not in SUPPORTED:
        known = ", ".join(SUPPORTED)
        raise config.unsupported(f"rope scaling {shown(name)} is not supported; supported are {known}")
    # Phi-3's configuration has the length of the first training beside the scaling, and this one counts
    key = "original_max_position_embeddings"
    original = (config if key in config else scaling).integer(key, 8192 if name == "llama3" else trained)
    if theta <= 1.0 or original < 2:
        raise config.malformed(
            f"rope_theta is {theta}, original_max_position_embeddings is {original}: {name} needs larger ones"
        )
    if name == "llama3":
        return Rope(tuple(_llama3(frequency, scaling, original) for frequency in frequencies))
    default = trained / original
    factor = scaling.number("factor", default) if scaling.get("factor") is not None else default
    if name == "yarn":
        return _yarn(frequencies, scaling, theta, original, factor)
    return _longrope(frequencies, scaling, original, factor)


def whole_rope(config: Config, head_dim: int, theta: float = 10000.0, kind: str = "full_attention") -> Rope:
    """That of heads all of whose values are rotated. UnsupportedError for a part of them, which transformers passes
    over in such models, or stumbles over."""
    found = rope(config, head_dim, theta=theta, kind=kind)
    if 2 * len(found.inverse_frequencies) != head_dim:
        raise config.unsupported("a partial_rotary_factor below 1 is not supported: all of a head is rotated")
    return found


def local_rope(config: Config, head_dim: int, theta: float) -> Rope:
    """That of layers that look back over a window only, where no scaling is meant for them: `theta` counts unless
    `rope_parameters` has some for these layers."""
    parameters = config.get("rope_parameters")
    by_kind = isinstance(parameters, Mapping) and "sliding_attention" in parameters
    trained = {"max_position_embeddings": config.get("max_position_embeddings")}
    own = config.within({"rope_parameters": parameters, **trained} if by_kind else {})
    return rope(own, head_dim, theta=theta, kind="sliding_attention")


def rope_parameters(config: Config, kind: str = "full_attention") -> dict[str, Any]:
    """What `config.json` says of the rotary embedding of one kind of layer; a key that is null says nothing.

    Newer checkpoints keep theta and scaling together in `rope_parameters`, by kind of layer if these differ; older ones
    have `rope_theta` and `rope_scaling`. Where both are given, as when a scaling was added to a newer checkpoint by
    hand, `rope_scaling` counts, as in transformers; but theta and the part that is rotated stay if only the other says
    them. CheckpointError if one of them is no object.
    """
    found = []
    for key in ("rope_parameters", "rope_scaling"):
        given = config.get(key) or {}
        if isinstance(given, Mapping) and kind in given:
            given = given[kind] or {}
        if not isinstance(given, Mapping):
            raise config.malformed(f"the rope scaling is {shown(given)}, an object is needed")
        found.append({key: value for key, value in given.items() if value is not None})
    parameters, scaling = found
    if not scaling:
        return parameters
    stay = [key for key in ("rope_theta", "partial_rotary_factor") if key in parameters and config.get(key) is None]
    return {**{key: parameters[key] for key in stay}, **scaling}


def scaling_type(parameters: Mapping[str, Any]) -> Any:
    """The name of the scaling, under its newer or its older key."""
    return parameters.get("rope_type", parameters.get("type", "default"))


def _proportional(head_dim: int, partial: float, theta: float, scaling: Config) -> Rope:
    """Gemma 4's: all of a head takes part, in halves, and the last frequencies are 0: these values stay."""
    turning = int(partial * head_dim // 2)
    if not 0 < turning <= head_dim // 2:
        raise scaling.malformed(f"partial_rotary_factor is {partial}, a part of a head of {head_dim} values is needed")
    factor = scaling.number("factor", 1.0)
    frequencies = [theta ** (-2.0 * i / head_dim) / factor for i in range(turning)]
    return Rope((*frequencies, *[0.0] * (head_dim // 2 - turning)))


def _llama3(frequency: float, scaling: Config, original: int) -> float:
    """Llama 3.1's scaling: long wavelengths are divided by `factor`, short ones kept, a linear blend between."""
    factor = scaling.number("factor", 8.0)
    low = scaling.number("low_freq_factor", 1.0)
    high = scaling.number("high_freq_factor", 4.0)
    if not low < high:
        raise scaling.malformed(f"low_freq_factor is {low}, it must be below high_freq_factor, {high}")
    turns = original * frequency / (2.0 * math.pi)
    if turns < low:
        return frequency / factor
    if turns > high:
        return frequency
    blend = (turns - low) / (high - low)
    return (1.0 - blend) * frequency / factor + blend * frequency


def _yarn(frequencies: tuple[float, ...], scaling: Config, theta: float, original: int, factor: float) -> Rope:
    """YaRN (arXiv:2309.00071): frequencies that turn often within the trained context are kept, those that turn
    less than once are divided by `factor`, a ramp between; cos and sin grow with log(factor)."""
    half = len(frequencies)

    def index(turns: float) -> float:
        """Where in `frequencies` a rotation turns so many times over the trained context."""
        return half * math.log(original / (turns * 2.0 * math.pi)) / math.log(theta)

    low = index(scaling.optional("beta_fast") or 32.0)
    high = index(scaling.optional("beta_slow") or 1.0)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    width = high - low or 0.001
    divided = [min(max((i - low) / width, 0.0), 1.0) for i in range(half)]
    result = tuple(f / factor * d + f * (1.0 - d) for f, d in zip(frequencies, divided, strict=True))
    attention = scaling.optional("attention_factor")
    if not attention:
        whole = scaling.optional("mscale")
        all_dim = scaling.optional("mscale_all_dim")
        both = whole and all_dim
        attention = _mscale(factor, whole) / _mscale(factor, all_dim) if both else _mscale(factor, 1.0)
    return Rope(result, attention_factor=attention)


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(frequencies: tuple[float, ...], scaling: Config, original: int, factor: float) -> Rope:
    """LongRoPE (arXiv:2402.13753): every frequency has a divisor of its own, one for sessions within the trained
    context and one for longer ones."""
    scaled = {}
    for key in ("short_factor", "long_factor"):
        divisors = scaling.get(key)
        if (
            not isinstance(divisors, list)
            or len(divisors) != len(frequencies)
            or not all(isinstance(d, int | float) and d > 0 for d in divisors)
        ):
            raise scaling.malformed(
                f"{key} is {shown(divisors)}, a list of {len(frequencies)} positive numbers is needed"
            )
        scaled[key] = tuple(f / d for f, d in zip(frequencies, divisors, strict=True))
    attention = scaling.optional("attention_factor")
    if not attention:
        attention = math.sqrt(1.0 + math.log(factor) / math.log(original)) if factor > 1.0 else 1.0
    result = Rope(scaled["short_factor"], attention_factor=attention)
    return replace(result, short_context=original, long_frequencies=scaled["long_factor"])
