"""Reading Hugging Face's `config.json`: required numbers, and the forms that rotary scaling comes in."""

import math
from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.models.graph import Rope

LARGEST = (1 << 31) - 1


def integer(config: Mapping[str, Any], key: str, source: str, default: int | None = None, most: int = LARGEST) -> int:
    """An integer of the configuration from 1 to `most`; CheckpointError if it is missing or is none."""
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise CheckpointError(f"{source}: {key} is {_shown(value)}, a positive integer is needed, at most {most}")
    return value


def number(config: Mapping[str, Any], key: str, source: str, default: float) -> float:
    """A positive number of the configuration; CheckpointError if it is something else."""
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-30 <= value <= 1e30:
        raise CheckpointError(f"{source}: {key} is {_shown(value)}, a positive number is needed, from 1e-30 to 1e30")
    return float(value)


def _shown(value: Any) -> str:
    """A value for a message: a configuration may hold megabytes there."""
    return repr(value)[:60]


def rope(config: Mapping[str, Any], head_dim: int, source: str) -> Rope:
    """The rotary embedding, with `linear` or `llama3` scaling.

    Newer checkpoints keep theta and scaling together in `rope_parameters`, older ones have `rope_theta` and
    `rope_scaling`. Raises UnsupportedError for another scaling, CheckpointError for one that is malformed.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise CheckpointError(f"{source}: the rope scaling is {_shown(scaling)}, an object is needed")
    theta = number(scaling if "rope_theta" in scaling else config, "rope_theta", source, 10000.0)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    frequencies = [theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]
    if kind == "linear":
        factor = number(scaling, "factor", source, 1.0)
        frequencies = [frequency / factor for frequency in frequencies]
    elif kind == "llama3":
        frequencies = [_llama3(frequency, scaling, config, source) for frequency in frequencies]
    elif kind != "default":
        raise UnsupportedError(f"{source}: rope scaling {_shown(kind)} is not supported; linear and llama3 are")
    return Rope(tuple(frequencies))


def _llama3(frequency: float, scaling: Mapping[str, Any], config: Mapping[str, Any], source: str) -> float:
    """Llama 3.1's scaling: long wavelengths are divided by `factor`, short ones kept, a linear blend between."""
    factor = number(scaling, "factor", source, 8.0)
    low = number(scaling, "low_freq_factor", source, 1.0)
    high = number(scaling, "high_freq_factor", source, 4.0)
    if not low < high:
        raise CheckpointError(f"{source}: low_freq_factor is {low}, it must be below high_freq_factor, {high}")
    trained = number(scaling, "original_max_position_embeddings", source, 8192.0)
    turns = trained * frequency / (2.0 * math.pi)
    if turns < low:
        return frequency / factor
    if turns > high:
        return frequency
    blend = (turns - low) / (high - low)
    return (1.0 - blend) * frequency / factor + blend * frequency
