"""Finds the weight files of a checkpoint's folder and makes sure that none is missing."""

import re
from pathlib import Path
from typing import Any

from edgeq.checkpoints import safetensors_index, torch_index
from edgeq.checkpoints.stored import Stored
from edgeq.errors import CheckpointError
from edgeq.system.input import read_bytes
from edgeq.system.json_input import named_float, parse_json

# In this order: what a whole file is called, and shards begin with; how both end
LAYOUTS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
_SHARD = re.compile(r"(.+)-(\d{5,6})-of-(\d{5,6})(\.safetensors|\.bin)")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, numbers that JSON has not as `named_float` says; CheckpointError if it is none."""
    try:
        found = parse_json(read_bytes(path), parse_float=named_float, parse_constant=named_float)
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror}") from None
    except ValueError:
        raise CheckpointError(f"{path}: is not JSON: download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: is not a JSON object: download it again")
    return found


def index_file(path: Path) -> dict[str, Stored]:
    """The tensors of one weight file, told apart by its name's end."""
    if path.suffix == ".safetensors":
        return safetensors_index.index(str(path))
    return torch_index.index(str(path))


def index_folder(folder: Path, notes: list[str]) -> dict[str, Stored]:
    """All tensors of a checkpoint's folder; safetensors are preferred to `.bin`, and a whole file to shards.

    `notes` gets a line where files contradict one another, which says what was taken. CheckpointError that names the
    file if a shard is missing, a tensor is in none of them, or there are no weights at all.
    """
    for stem, end in LAYOUTS:
        whole, shard_index = folder / f"{stem}{end}", folder / f"{stem}{end}.index.json"
        if whole.is_file() and not _one_of_several(whole, shard_index, notes):
            return index_file(whole)
        if shard_index.is_file():
            return _from_index(folder, shard_index, notes)
        if shards := _shards(folder, stem, end, notes):
            return _together({shard: index_file(folder / shard) for shard in shards})
    raise CheckpointError(f"{folder}: no weights found (model.safetensors or pytorch_model.bin, or shards of one)")


def _one_of_several(whole: Path, shard_index: Path, notes: list[str]) -> bool:
    """Whether a file with a whole checkpoint's name is but a shard, as the index beside it says."""
    if not shard_index.is_file():
        return False
    try:
        files = set(_places(shard_index).values())
    except CheckpointError:
        files = set()
    if whole.name not in files:  # left over from shards that were put together, or are there a second time
        notes.append(f"{whole.name} is taken, the shards of {shard_index.name} are not")
    return len(files) > 1 and whole.name in files


def _places(shard_index: Path) -> dict[str, str]:
    """Tensor -> the file that has it, as an index says."""
    places = read_json(shard_index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{shard_index}: has no weight_map from tensors to files: download it again")
    return places


def _from_index(folder: Path, shard_index: Path, notes: list[str]) -> dict[str, Stored]:
    """The tensors of all files that an index names, whatever these are called."""
    places = _places(shard_index)
    files = sorted(set(places.values()))
    for file in files:
        if Path(file).name != file:
            raise CheckpointError(f"{shard_index}: names the file {file!r} outside the checkpoint: refused")
    _all_present(folder, files)
    shards = {file: index_file(folder / file) for file in files}
    found = _together(shards)
    strays = []
    for name, file in places.items():
        if name not in found:
            raise CheckpointError(f"{folder / file}: has no tensor {name!r}, though the index says so: download again")
        if name not in shards[file]:
            strays.append(name)
        else:
            found[name] = shards[file][name]
    if strays:
        more = f" (and {len(strays) - 1} more)" if len(strays) > 1 else ""
        place = Path(found[strays[0]].path).name
        notes.append(f"{strays[0]}{more} is taken from {place}, which has it, not from where {shard_index.name} says")
    return found


def _together(shards: dict[str, dict[str, Stored]]) -> dict[str, Stored]:
    """The tensors of several files."""
    return {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}


def _shards(folder: Path, stem: str, end: str, notes: list[str]) -> list[str]:
    """Shards without an index; their names say how many there must be. None if there are none."""
    sets: dict[tuple[str, str, int, str], list[str]] = {}
    for name in sorted(path.name for path in folder.iterdir()):
        match = _SHARD.fullmatch(name)
        if match and name.startswith(stem) and match[4] == end:
            sets.setdefault((match[1], match[3], len(match[2]), end), []).append(name)
    whole = {key: names for key, names in sets.items() if len(names) == int(key[1])}
    chosen = {key: names for key, names in whole.items() if key[0] == stem} or whole or sets
    if not chosen:
        return []
    (first, total, width, _), names = max(chosen.items(), key=lambda one: len(one[1]))
    _all_present(folder, [f"{first}-{i:0{width}}-of-{total}{end}" for i in range(1, int(total) + 1)])
    if len(chosen) > 1:
        others = ", ".join(names[0] for names in chosen.values())
        raise CheckpointError(f"{folder}: has shards of {len(chosen)} checkpoints ({others}): keep those of one")
    if len(sets) > 1:
        notes.append(f"{names[0]} and its like are taken, other shards are not")
    return names


def _all_present(folder: Path, files: list[str]) -> None:
    present = {path.name for path in folder.iterdir() if path.is_file()}
    missing = [file for file in files if file not in present]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise CheckpointError(f"{folder}: the shard {missing[0]}{more} is missing: download the checkpoint again")
