"""Writes PyTorch's checkpoint format without PyTorch, by pickle opcodes (protocol 2), sound or hostile."""

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(
    key: str, storage: str, elements: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    """`torch._utils._rebuild_tensor_v2(persistent storage, offset, shape, strides, False, OrderedDict())`."""
    persistent = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n"
    persistent += text(key) + text("cpu") + integer(elements) + b"tQ"
    arguments = b"(" + persistent + integer(offset) + numbers(shape) + numbers(strides) + b"\x89"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"ccollections\nOrderedDict\n)RtR"


def state_dict(entries: dict[str, bytes]) -> bytes:
    """A pickle of a dict from names to the values that the opcodes make."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."


def archive(path: Path, pickled: bytes, storages: dict[str, bytes], **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        z.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            z.writestr(f"archive/data/{key}", content)
        for name, content in members.items():
            z.writestr(f"archive/{name}", content)


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A sound checkpoint of f32 arrays."""
    entries, storages = {}, {}
    for i, (name, array) in enumerate(tensors.items()):
        strides = tuple(s // 4 for s in np.ascontiguousarray(array).strides)
        entries[name] = tensor(str(i), "FloatStorage", array.size, array.shape, strides)
        storages[str(i)] = array.astype("<f4").tobytes()
    archive(path, state_dict(entries), storages)
