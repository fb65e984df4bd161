"""The matrices that sentence-transformers keeps in folders of their own, for what follows the pooling."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.checkpoints.folder import index_file, read_json
from edgeq.checkpoints.stored import Stored
from edgeq.system.input import read_bytes
from edgeq.system.json_input import parse_json

KEY = "edgeq_dense"  # a key of ours in config.json: the modules, in order
FILES = ("*_Dense/config.json", "*_Dense/model.safetensors", "*_Dense/pytorch_model.bin")  # as repositories have them


def dense_modules(folder: Path) -> tuple[dict[str, Stored], list[dict[str, Any]]]:
    """The tensors, `FOLDER.linear.weight`, and what each module's own config.json says, with its `place` among the
    modules and its `folder`. A module whose files are not there is left out."""
    tensors: dict[str, Stored] = {}
    found: list[dict[str, Any]] = []
    for place, module in enumerate(_modules(folder / "modules.json")):
        path = module.get("path")
        if not str(module.get("type")).endswith("Dense") or not isinstance(path, str) or Path(path).name != path:
            continue
        weights = [folder / path / name for name in ("model.safetensors", "pytorch_model.bin")]
        stored = next((file for file in weights if file.is_file()), None)
        if stored is None or not (folder / path / "config.json").is_file():
            continue
        own = index_file(stored)
        tensors |= {f"{path}.{name}": replace(one, name=f"{path}.{name}") for name, one in own.items()}
        found.append({**read_json(folder / path / "config.json"), "place": place, "folder": path})
    return tensors, found


def _modules(path: Path) -> list[dict[str, Any]]:
    """What is wrong with the file is said where it is used."""
    try:
        modules = parse_json(read_bytes(path))
    except (OSError, ValueError):
        return []
    return [one for one in modules if isinstance(one, dict)] if isinstance(modules, list) else []
