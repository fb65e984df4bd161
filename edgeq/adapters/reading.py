"""Reads adapters, in whichever form they come, and adds up what they add."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeq.adapters.adapter import Adapter
from edgeq.adapters.fitting import fitted
from edgeq.adapters.gguf_adapter import read_gguf_adapter
from edgeq.adapters.given import CONFIG, WEIGHTS, Wanted
from edgeq.adapters.peft import read_peft
from edgeq.container.gguf_values import is_gguf
from edgeq.errors import CheckpointError
from edgeq.models import Architecture
from edgeq.runtime.adapted import LowRank


def read_adapter(path: Path) -> Adapter:
    """The adapter in a PEFT folder, of which `path` may be a file, or in a GGUF file. Raises what its reader does,
    CheckpointError where it is none."""
    try:
        if is_gguf(path):
            return read_gguf_adapter(path)
        if path.is_dir() or path.name in (CONFIG, *WEIGHTS):
            return read_peft(path if path.is_dir() else path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    raise CheckpointError(f"{path}: is no adapter: give a folder that PEFT has saved, or a GGUF file")


def added_by(lora: Sequence[Wanted], model: Architecture) -> dict[str, LowRank]:
    """What adapters add together, by the name of the file's matrix. Raises as `read_adapter` and `fitted` do."""
    together: dict[str, list[LowRank]] = {}
    for path, scale in lora:
        for name, pair in fitted(read_adapter(path), model).items():
            together.setdefault(name, []).append(LowRank(pair.a, pair.b * np.float32(scale * pair.factor)))
    return {
        name: LowRank(np.concatenate([one.a for one in pairs]), np.concatenate([one.b for one in pairs], axis=1))
        for name, pairs in together.items()
    }
