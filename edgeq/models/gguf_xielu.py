"""Apertus' activation in GGUF: keys with a value for each layer, where a checkpoint has tensors of one value."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgeq.errors import FormatError, UnsupportedError
from edgeq.models.apertus import GIVEN, XIELU
from edgeq.models.composition import Model
from edgeq.models.gguf_hooks import Config, Shapes

NAMES = [name.removeprefix("ffn_act.") for name, _, _ in XIELU]  # of the values
TENSORS = [f"blk.{{}}.{name}" for name, _, _ in XIELU]


def read(values: Mapping[str, Any], shapes: Shapes) -> Config:
    """The values of all layers; FormatError if some are missing."""
    layers = values["block_count"]
    count, found = layers[0] if isinstance(layers, list) else layers, {}
    for name in NAMES:
        given = values.get(f"xielu.{name}")
        every = given if isinstance(given, list) else [given] * count
        if len(every) < count or not all(isinstance(value, float) for value in every):
            raise FormatError(f"xielu.{name} is no list of {count} numbers: convert the model again")
        found[name] = every[:count]
    return {GIVEN: found}


def write(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    """As `read` reads it, of a configuration that has the values of all layers."""
    if config.get("hidden_act", "xielu") != "xielu" or config.get("tie_word_embeddings"):
        raise UnsupportedError("an Apertus of another activation than xIELU, or a tied one, cannot be exported")
    if not any(config.get(key) for key in ("rope_parameters", "rope_scaling", "rope_theta")):
        raise UnsupportedError("its config.json says nothing of its rotary embedding, which GGUF needs")
    given = config.get(GIVEN) or {name: [0.0] * model.num_hidden_layers for name in NAMES}
    return {f"xielu.{name}": [float(value) for value in given[name]] for name in NAMES}


def gathered(names: Iterable[str], layers: int, value: Callable[[str], float]) -> Config:
    """What a file says that has such tensors in the place of keys, `value(name)` being that of one; nothing of another
    file."""
    if not any(map(is_said, names)):
        return {}
    return {GIVEN: {name: [value(t.format(i)) for i in range(layers)] for name, t in zip(NAMES, TENSORS, strict=True)}}


def is_said(name: str) -> bool:
    """Whether GGUF has a tensor as a key."""
    return ".ffn_act." in name
