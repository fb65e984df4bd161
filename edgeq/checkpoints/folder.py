"""Finds the weight files of a checkpoint's folder and makes sure that none is missing."""

import json
import re
from pathlib import Path
from typing import Any

from edgeq.checkpoints import safetensors_index, torch_index
from edgeq.checkpoints.stored import Stored
from edgeq.errors import CheckpointError

# In this order: (single file, index of shards, start and end of a shard's name)
LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json", "model-", ".safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-", ".bin"),
)
_SHARD = re.compile(r"(.+)-(\d{5,6})-of-(\d{5,6})(\.safetensors|\.bin)")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; CheckpointError if it is none."""
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: is not JSON: download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: is not a JSON object: download it again")
    return found


def index_file(path: Path) -> dict[str, Stored]:
    """The tensors of one weight file, told apart by its name's end."""
    if path.suffix == ".safetensors":
        return safetensors_index.index(str(path))
    return torch_index.index(str(path))


def index_folder(folder: Path) -> dict[str, Stored]:
    """All tensors of a checkpoint's folder; safetensors are preferred to `.bin`.

    CheckpointError that names the file if a shard is missing, a tensor is not where the index says, or there are no
    weights at all.
    """
    for single, shard_index, start, end in LAYOUTS:
        if (folder / single).is_file():  # an index beside it is a left-over: transformers takes the whole file, too
            return index_file(folder / single)
        if (folder / shard_index).is_file():
            return _from_index(folder, shard_index)
        shards = sorted(p.name for p in folder.iterdir() if p.name.startswith(start) and p.name.endswith(end))
        if any(_SHARD.fullmatch(name) for name in shards):
            return _from_names(folder, shards)
    raise CheckpointError(f"{folder}: no weights found (model.safetensors or pytorch_model.bin, or shards of one)")


def _from_index(folder: Path, shard_index: str) -> dict[str, Stored]:
    places = read_json(folder / shard_index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{folder / shard_index}: has no weight_map from tensors to files: download it again")
    files = sorted(set(places.values()))
    for file in files:
        if Path(file).name != file:
            raise CheckpointError(f"{folder / shard_index}: names the file {file!r} outside the checkpoint: refused")
    _all_present(folder, files)
    shards = {file: index_file(folder / file) for file in files}
    found: dict[str, Stored] = {}
    for name, file in places.items():
        if name not in shards[file]:
            raise CheckpointError(f"{folder / file}: has no tensor {name!r}, though the index says so: download again")
        found[name] = shards[file][name]
    return found


def _from_names(folder: Path, names: list[str]) -> dict[str, Stored]:
    """Shards without an index: their names say how many there must be."""
    matches = [match for match in map(_SHARD.fullmatch, names) if match]
    stem, number, total, end = matches[0].groups()
    width = len(number)
    _all_present(folder, [f"{stem}-{i:0{width}}-of-{total}{end}" for i in range(1, int(total) + 1)])
    found: dict[str, Stored] = {}
    for match in matches:
        found.update(index_file(folder / match[0]))
    return found


def _all_present(folder: Path, files: list[str]) -> None:
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise CheckpointError(f"{folder}: the shard {missing[0]}{more} is missing: download the checkpoint again")
