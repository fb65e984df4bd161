"""Reading Hugging Face's `config.json`: required numbers, activations, and the attention of each layer."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError, UnsupportedError

LARGEST = (1 << 31) - 1

# What config.json calls an activation -> what the graph calls it
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def integer(config: Mapping[str, Any], key: str, source: str, default: int | None = None, most: int = LARGEST) -> int:
    """An integer of the configuration from 1 to `most`; CheckpointError if it is missing or is none."""
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise CheckpointError(f"{source}: {key} is {shown(value)}, a positive integer is needed, at most {most}")
    return value


def number(config: Mapping[str, Any], key: str, source: str, default: float | None = None) -> float:
    """A positive number of the configuration; CheckpointError if it is something else."""
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-30 <= value <= 1e30:
        raise CheckpointError(f"{source}: {key} is {shown(value)}, a positive number is needed, from 1e-30 to 1e30")
    return float(value)


def optional(config: Mapping[str, Any], key: str, source: str, default: float | None = None) -> float:
    """A positive number of the configuration, or 0 where it is null."""
    return 0.0 if config.get(key, default) is None else number(config, key, source, default)


def shown(value: Any) -> str:
    """A value for a message: a configuration may hold megabytes there."""
    return repr(value)[:60]


def activation(config: Mapping[str, Any], key: str, source: str, default: str) -> str:
    """The graph's name of the activation; UnsupportedError for an unknown one."""
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, str) or value not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UnsupportedError(f"{source}: {key} {shown(value)} is not supported; supported are {known}")
    return ACTIVATIONS[value]


def refuse(config: Mapping[str, Any], source: str, **usual: Any) -> None:
    """UnsupportedError for a key that is neither missing, null nor as usual: this version computes only the usual."""
    for key, value in usual.items():
        if config.get(key) not in (None, value):
            raise UnsupportedError(f"{source}: {key} {shown(config[key])} is not supported; supported is {value!r}")


def tied(config: Mapping[str, Any], whether: bool) -> dict[str, Any]:
    """The configuration with the head being the embedding, or not, in every place that may say so."""
    changed = {**config, "tie_word_embeddings": whether}
    if "tie_embedding" in config:  # LFM2's own name, which counts
        changed["tie_embedding"] = whether
    if isinstance(config.get("text_config"), Mapping):
        changed["text_config"] = tied(config["text_config"], whether)
    return changed


def windows(config: Mapping[str, Any], source: str, layers: int, usual: list[bool]) -> list[int | None]:
    """The window of each layer, None where it sees every position.

    `layer_types` says which layers are local; without it those that are true in `usual`. UnsupportedError for a kind
    of layer that is neither, CheckpointError for a list that is too short or a window that is none.
    """
    kinds = config.get("layer_types")
    if kinds is None:
        local = usual
    else:
        if not isinstance(kinds, list) or len(kinds) < layers:
            raise CheckpointError(f"{source}: layer_types is {shown(kinds)}, a list of {layers} is needed")
        names = {"full_attention": False, "sliding_attention": True}
        for kind in kinds[:layers]:
            if not isinstance(kind, str) or kind not in names:
                raise UnsupportedError(f"{source}: layers of type {shown(kind)} are not supported")
        local = [names[kind] for kind in kinds[:layers]]
    if not any(local):
        return [None] * layers
    window = integer(config, "sliding_window", source, 4096)
    return [window if here else None for here in local]
