"""Where the tensors of a `.safetensors` file lie.

Layout: 8 bytes length N (little-endian), N bytes of JSON `name -> {dtype, shape, data_offsets: [begin, end]}` with
offsets relative to the end of the JSON (https://huggingface.co/docs/safetensors, "Format"). Of tensors that share their
memory, safetensors' `save_model` keeps one and puts the names of the others into `__metadata__`: `other -> kept`.
"""

import os
import struct
from dataclasses import replace
from math import prod
from typing import Any, NoReturn

from edgeq.checkpoints.stored import ELEMENTS, Stored, row_major
from edgeq.errors import CheckpointError
from edgeq.system.input import open_regular
from edgeq.system.json_input import parse_json

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
LFS_POINTER = b"version https://git-lfs"


def index(path: str) -> dict[str, Stored]:
    """The tensors of `path`, also by the other names that they have. CheckpointError, one line, if the file is damaged
    or incomplete."""
    header, base, size = _header(path)
    metadata = header.pop("__metadata__", None)
    found = {name: _entry(path, name, entry, base, size) for name, entry in header.items()}
    _check_places(path, header, size - base)
    for alias, name in metadata.items() if isinstance(metadata, dict) else ():
        if isinstance(name, str) and name in header and alias not in header:
            found[alias] = replace(found[name], name=alias)
    return found


def metadata_of(path: str) -> dict[str, Any]:
    """What `path` says beside its tensors; nothing of a file that is no safetensors file."""
    if not path.endswith(".safetensors"):
        return {}
    metadata = _header(path)[0].get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _header(path: str) -> tuple[dict[str, Any], int, int]:
    """The header's JSON, where the tensors begin, and the file's size."""
    try:
        with open(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if prefix == LFS_POINTER[:8]:
                _fail(path, "is a Git LFS pointer, not the weights: run `git lfs pull` or download the file itself")
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
                _fail(path, "is no safetensors file, or is cut short: download it again")
            text = file.read(length)
    except OSError as e:
        _fail(path, f"cannot be read: {e.strerror}")
    try:
        header = parse_json(text, object_pairs_hook=_once)
    except ValueError as error:
        _fail(path, f"its header is not JSON ({error}): download it again")
    if not isinstance(header, dict):
        _fail(path, "its header is not a JSON object: download it again")
    return header, 8 + length, size


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _check_places(path: str, header: dict[str, Any], nbytes: int) -> None:
    """CheckpointError unless the tensors, one after the other, are the whole file: the format asks for that, so that
    nothing lies hidden between them and no two share what they have."""
    end, before = 0, "the header"
    for begin, stop, name in sorted((*entry["data_offsets"], name) for name, entry in header.items()):
        if begin != end:
            what = "overlaps" if begin < end else "does not follow"
            _fail(path, f"tensor {name!r} {what} {before}: the file is damaged, download it again")
        end, before = stop, repr(name)
    if end != nbytes:
        _fail(
            path, f"{nbytes - end} bytes after its last tensor belong to none: the file is damaged, download it again"
        )


def _entry(path: str, name: str, entry: Any, base: int, size: int) -> Stored:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if not isinstance(dtype, str) or any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        _fail(path, f"the header's entry of tensor {name!r} is malformed: download it again")
    if begin > end or base + end > size:
        _fail(path, f"tensor {name!r} lies outside the file ({size} bytes), the download is incomplete: download again")
    if dtype in ELEMENTS and prod(shape) * ELEMENTS[dtype].itemsize != end - begin:
        _fail(path, f"tensor {name!r} has {end - begin} bytes, not those of {dtype} {list(shape)}: download it again")
    return Stored(name, shape, dtype, path, base + begin, row_major(shape))


def _fail(path: str, what: str) -> NoReturn:
    raise CheckpointError(f"{path}: {what}")
