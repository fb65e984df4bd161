"""A transformers model in memory as a checkpoint: what conversion reads, without a file between."""

import json
import os
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from edgeq.checkpoints import Checkpoint, TensorRef, open_checkpoint
from edgeq.errors import UnsupportedError
from edgeq.models import architecture

_OWN = re.compile(r"\.(rounding|adapter)\.")  # what `prepare` adds to a layer


class ModuleCheckpoint(Checkpoint):
    """A model's weights, as they are before rounding, and its configuration, under the names of a checkpoint.

    `assets` are its tokenizer's files and the like; `owners` says which layer a weight is of.
    """

    def __init__(self, model: nn.Module, assets: dict[str, bytes] | None = None) -> None:
        self.source = type(model).__name__
        self.config = config_of(model)
        self.weights = {name: weight for name, weight in model.named_parameters() if not _OWN.search(name)}
        self.owners = {name: name.rpartition(".")[0] for name in self.weights}
        self._name_head(model)
        self.tensors = {name: TensorRef(name, tuple(one.shape), "F32") for name, one in self.weights.items()}
        self.packed, self.files, self.notes = {}, [], []
        self.assets = {"config.json": json.dumps(self.config, indent=2).encode(), **(assets or {})}

    def _name_head(self, model: nn.Module) -> None:
        """Call the head as checkpoints do: some versions of transformers have another name for the layer."""
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        known = architecture(self.config, self.source).tensors.get("output.weight")
        here = [name for name, weight in self.weights.items() if head is not None and weight is head.weight]
        if known and here and known.parts[0].source not in self.weights:
            name = known.parts[0].source
            self.weights[name], self.owners[name] = self.weights.pop(here[0]), self.owners.pop(here[0])

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self.weights[name].detach()[start:stop].cpu().numpy()
        return found.astype(np.float32)

    def nbytes(self, name: str) -> int:
        return 4 * self.weights[name].numel()

    def same(self, name: str, other: str) -> bool:
        return np.array_equal(self.read(name), self.read(other))

    def close(self) -> None:
        pass


def config_of(model: nn.Module) -> dict[str, Any]:
    """What config.json says of a transformers model. UnsupportedError for another module."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_json_string"):
        raise UnsupportedError(f"{type(model).__name__}: is no transformers model: an .eqf file holds none other")
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return found


def assets_of(source: str | os.PathLike[str]) -> dict[str, bytes]:
    """The small files of the checkpoint that a model was made from; its weights are not read."""
    with open_checkpoint(source) as checkpoint:
        return {name: content for name, content in checkpoint.assets.items() if name != "config.json"}
