"""Rows read from safetensors files equal the safetensors library's; damaged files are refused in one line."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeq.checkpoints.safetensors_index import index
from edgeq.checkpoints.stored import read_rows
from edgeq.errors import CheckpointError
from edgeq.system.input import InputFile


def rows(path: Path, name: str, start: int, stop: int) -> np.ndarray:
    return read_rows(index(str(path))[name], InputFile(path), start, stop)


@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2],
    ids=lambda d: d.__name__,
)
def test_rows_of_every_float_type(tmp_path: Path, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((37, 20)).astype(dtype)
    save_file({"before": weights[:3], "w": weights, "v": weights[0]}, tmp_path / "m.safetensors")
    expected = weights.astype(np.float32)
    for start, stop in ((0, 37), (0, 1), (16, 32), (36, 37), (5, 5)):
        found = rows(tmp_path / "m.safetensors", "w", start, stop)
        assert found.dtype == np.float32 and found.shape == (stop - start, 20) and found.flags.c_contiguous
        assert np.array_equal(found, expected[start:stop])
    assert np.array_equal(rows(tmp_path / "m.safetensors", "v", 3, 9), expected[0, 3:9])


def test_special_values_survive(tmp_path: Path) -> None:
    weights = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-45]], ml_dtypes.bfloat16)
    save_file({"w": weights}, tmp_path / "m.safetensors")
    found = rows(tmp_path / "m.safetensors", "w", 0, 1)
    assert np.array_equal(found.view(np.uint32) >> 16, weights.view(np.uint16))


def test_real_checkpoint_equals_the_library(shared_data: Path) -> None:
    from safetensors import safe_open

    path = shared_data / "models" / "stories260K" / "model.safetensors"
    with safe_open(path, "np") as f:
        assert sorted(index(str(path))) == sorted(f.keys())
        for name in f.keys():  # noqa: SIM118 (not a dict)
            expected = f.get_tensor(name)
            assert np.array_equal(rows(path, name, 0, len(expected)), expected)


def test_integers_are_listed_but_not_read(tmp_path: Path) -> None:
    save_file({"qweight": np.zeros((4, 4), np.int32)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"'qweight'.*I32"):
        rows(tmp_path / "m.safetensors", "qweight", 0, 4)


def test_file_that_shrank(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"w": np.zeros((4, 4), np.float32)}, path)
    stored = index(str(path))["w"]
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="ends inside tensor 'w'"):
        read_rows(stored, InputFile(path), 0, 4)


def file(header: Any, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (4, 4), offsets: Any = (0, 64)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut short"),
        (b"\x01\x02", "cut short"),
        (file(entry())[:30], "cut short"),
        (struct.pack("<Q", 1 << 62) + bytes(100), "cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (file(b"{not json"), "not JSON"),
        (file(b"\xff\xff"), "not JSON"),
        (file(b"[" * 100_000), "not JSON"),
        (file([1]), "not a JSON object"),
        (file({"w": 3}), "'w' is malformed"),
        (file({"w": {"dtype": "F32"}}), "'w' is malformed"),
        (file(entry(dtype=3)), "'w' is malformed"),
        (file(entry(shape=[4, -4])), "'w' is malformed"),
        (file(entry(shape=[4, 4.0])), "'w' is malformed"),
        (file(entry(offsets=[0])), "'w' is malformed"),
        (file(entry(offsets=[64, 0])), "outside the file"),
        (file(entry(), bytes(63)), "outside the file"),
        (file(entry(shape=[5, 4])), "has 64 bytes"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        index(str(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def written(path: Path, header: Any, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, "tensor 'b' overlaps 'a'"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, "tensor 'b' overlaps 'a'"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, "tensor 'b' does not follow 'a'"),
        ({"a": entry(4, 12)}, "tensor 'a' does not follow the header"),
        ({"a": entry(0, 8)}, "4 bytes after its last tensor belong to none"),
        (b'{"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]},"a":{}}', "a name occurs twice"),
        (b"[" + b"[]," * (1 << 20) + b"0]", "it has more than 1048576 values"),
    ],
)
def test_what_the_reference_library_refuses(tmp_path: Path, header: Any, message: str) -> None:
    path = written(tmp_path / "m.safetensors", header, bytes(12))
    with pytest.raises(CheckpointError, match=message):
        index(str(path))


def test_tensors_of_no_bytes_may_lie_anywhere_between(tmp_path: Path) -> None:
    header = {"c": entry(8, 8), "a": entry(0, 8), "b": entry(8, 12), "d": entry(12, 12), "e": entry(0, 0)}
    assert set(index(str(written(tmp_path / "m.safetensors", header, bytes(12))))) == set("abcde")
