"""Hugging Face's `config.json`, typed: what is no number, flag or known name is refused where it is read."""

from collections.abc import Mapping
from typing import Any

from edgeq.errors import CheckpointError, UnsupportedError

LARGEST = (1 << 31) - 1

BARE = "edgeq_without_head"  # a key of ours, true where the checkpoint is a decoder alone

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


class Config:
    """The keys of a configuration, and the name of where they come from, with which every error begins."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values, self.source = values, source

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, default: Any = None) -> Any:
        """A value as it is, of any type."""
        return self.values.get(key, default)

    def integer(self, key: str, default: int | None = None, most: int = LARGEST) -> int:
        """An integer from 1 to `most`; CheckpointError if it is missing or is none."""
        value = self.get(key)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.malformed(f"{key} is {shown(value)}, a positive integer is needed, at most {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number; CheckpointError if it is something else."""
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-30 <= value <= 1e30:
            raise self.malformed(f"{key} is {shown(value)}, a positive number is needed, from 1e-30 to 1e30")
        return float(value)

    def optional(self, key: str, default: float | None = None) -> float:
        """A positive number, or 0 where it is null."""
        return 0.0 if self.get(key, default) is None else self.number(key, default)

    def flag(self, key: str, default: bool = False) -> bool:
        """Whether something is so; null says no."""
        return bool(self.get(key, default))

    def activation(self, key: str, default: str) -> str:
        """The graph's name of the activation; UnsupportedError for an unknown one."""
        value = self.get(key)
        if value is None:
            value = default
        if not isinstance(value, str) or value not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise self.unsupported(f"{key} {shown(value)} is not supported; supported are {known}")
        return ACTIVATIONS[value]

    def layer_types(self, layers: int, known: tuple[str, ...], given: Any = None) -> list[str]:
        """The kind of each layer, as `layer_types` or `given` says. CheckpointError for a list that is too short,
        UnsupportedError for a kind that is not known."""
        kinds = self.get("layer_types") if given is None else given
        if not isinstance(kinds, list) or len(kinds) < layers:
            raise self.malformed(f"layer_types is {shown(kinds)}, a list of {layers} is needed")
        for kind in kinds[:layers]:
            if kind not in known:
                raise self.unsupported(f"layers of type {shown(kind)} are not supported")
        return kinds[:layers]

    def refuse(self, **usual: Any) -> None:
        """UnsupportedError for a key that is neither missing, null nor as usual: only the usual is computed here."""
        for key, value in usual.items():
            if self.get(key) not in (None, value):
                raise self.unsupported(f"{key} {shown(self.get(key))} is not supported; supported is {value!r}")

    def malformed(self, message: str) -> CheckpointError:
        """The error of a value that no such configuration has."""
        return CheckpointError(f"{self.source}: {message}")

    def unsupported(self, message: str) -> UnsupportedError:
        """The error of a value that this version does not compute."""
        return UnsupportedError(f"{self.source}: {message}")

    def within(self, values: Mapping[str, Any]) -> "Config":
        """A part of this one, or another form of it."""
        return Config(values, self.source)

    def changed(self, **values: Any) -> "Config":
        """With these values."""
        return self.within({**self.values, **values})

    def usually(self, **values: Any) -> "Config":
        """With these values where it lacks them."""
        return self.within({**values, **self.values})


def shown(value: Any) -> str:
    """A value for a message: a configuration may hold megabytes there."""
    return repr(value)[:60]


def model_type_of(config: Mapping[str, Any]) -> Any:
    """Of what kind a model is: Jina's call themselves `bert`."""
    kind = config.get("model_type")
    return "jina_bert_v2" if kind == "bert" and config.get("position_embedding_type") == "alibi" else kind


def is_decoder_alone(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is said to be of a class without a head: of `Qwen3Model`, not `Qwen3ForCausalLM`."""
    names = config.get("architectures")
    return isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and names[0].endswith("Model")


def tied(config: Mapping[str, Any], whether: bool) -> dict[str, Any]:
    """The configuration with the head being the embedding, or not, in every place that may say so."""
    changed = {**config, "tie_word_embeddings": whether}
    if "tie_embedding" in config:  # LFM2's own name, which counts
        changed["tie_embedding"] = whether
    if isinstance(config.get("text_config"), Mapping):
        changed["text_config"] = tied(config["text_config"], whether)
    return changed
