"""PyTorch checkpoints are read without PyTorch, and nothing that their pickles ask for runs."""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files

from edgeq.checkpoints.stored import read_rows
from edgeq.checkpoints.torch_index import index
from edgeq.errors import CheckpointError
from edgeq.system.input import InputFile

DATA = Path(__file__).parent / "data"  # written by torch.save of PyTorch 2


def rows(path: Path, name: str, start: int, stop: int) -> np.ndarray:
    return read_rows(index(str(path))[name], InputFile(path), start, stop)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        index(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_file_written_by_pytorch() -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
    expected = {"f32": base, "f16": base, "bf16_transposed": base.T, "slice": base[1:3, 2:5], "parameter": base[0]}
    path = DATA / "torch_zip.bin"
    assert sorted(index(str(path))) == sorted([*expected, "ids"])
    for name, values in expected.items():
        for start, stop in ((0, len(values)), (1, 2), (0, 0)):
            found = rows(path, name, start, stop)
            assert found.flags.c_contiguous and np.array_equal(found, values[start:stop]), name
    with pytest.raises(CheckpointError, match=r"'ids'.*I64"):
        rows(path, "ids", 0, 3)


def test_legacy_format_is_named() -> None:
    assert "before version 1.6" in refused(DATA / "torch_legacy.bin")


def test_written_without_pytorch(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    torch_files.write(tmp_path / "m.bin", {"w": weights, "v": weights[0]})
    assert np.array_equal(rows(tmp_path / "m.bin", "w", 3, 19), weights[3:19])
    assert np.array_equal(rows(tmp_path / "m.bin", "v", 0, 8), weights[0])


class Runs:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch MARKER",)),
        (eval, ("open('MARKER', 'w')",)),
        (exec, ("open('MARKER', 'w')",)),
        (open, ("MARKER", "w")),
        (__import__, ("this",)),
    ],
)
def test_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, arguments: tuple[str, ...], protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    torch_files.archive(tmp_path / "m.bin", pickle.dumps({"w": Runs(function, *arguments)}, protocol), {})
    message = refused(tmp_path / "m.bin")
    assert "refused" in message and function.__name__ in message
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize(
    "name", [b"torch\nload", b"torch.storage\n_load_from_bytes", b"builtins\ngetattr", b"collections\nnamedtuple"]
)
def test_functions_of_known_modules_are_refused(tmp_path: Path, name: bytes) -> None:
    torch_files.archive(tmp_path / "m.bin", b"\x80\x02c" + name + b"\n(X\x01\x00\x00\x00atR.", {})
    assert "refused" in refused(tmp_path / "m.bin")


def test_allowed_names_cannot_be_changed(tmp_path: Path) -> None:
    """The opcode BUILD sets attributes; it must not reach the checked tensor or the shared stand-ins."""
    sound = torch_files.tensor("0", "FloatStorage", 4, (2, 2), (2, 1))
    state = b"}(" + torch_files.text("shape") + torch_files.numbers((1 << 40, 2)) + b"u"
    for target in (sound, b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        for change in (state, b"N" + state + b"\x86"):
            pickled = torch_files.state_dict({"w": target + change + b"b"})
            torch_files.archive(tmp_path / "m.bin", pickled, {"0": bytes(16)})
            assert "damaged" in refused(tmp_path / "m.bin")


@pytest.mark.parametrize(
    "value",
    [
        torch_files.tensor("0", "FloatStorage", 4, (3, 2), (2, 1)),
        torch_files.tensor("0", "FloatStorage", 4, (2, 2), (2, 1), offset=1),
        torch_files.tensor("0", "FloatStorage", 4, (2, 2), (-2, 1)),
        torch_files.tensor("0", "FloatStorage", 4, (-2, 2), (2, 1)),
        torch_files.tensor("0", "FloatStorage", 4, (2, 2), (2,)),
        torch_files.tensor("0", "FloatStorage", 4, (2, 2), (2, 1), offset=-1),
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))\x89NtR",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"X\x01\x00\x00\x00aQ",
        b"h\x07",
        b"r\xff\xff\xff\x7f",
        b"\x8a\xff",
    ],
)
def test_damaged_pickles(tmp_path: Path, value: bytes) -> None:
    torch_files.archive(tmp_path / "m.bin", torch_files.state_dict({"w": value}), {"0": bytes(16)})
    assert "damaged" in refused(tmp_path / "m.bin")


def test_not_a_dict(tmp_path: Path) -> None:
    torch_files.archive(tmp_path / "m.bin", pickle.dumps([1, 2], 2), {})
    assert "holds a list" in refused(tmp_path / "m.bin")


def test_storage_missing_short_or_compressed(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    pickled = torch_files.state_dict({"w": torch_files.tensor("0", "FloatStorage", 4, (2, 2), (2, 1))})
    torch_files.archive(path, pickled, {})
    assert "'w' is missing" in refused(path)
    torch_files.archive(path, pickled, {"0": bytes(15)})
    assert "too short" in refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("archive/data.pkl", pickled)
        z.writestr("archive/data/0", bytes(16))
    assert "compressed" in refused(path)


def test_big_endian(tmp_path: Path) -> None:
    torch_files.archive(tmp_path / "m.bin", torch_files.state_dict({}), {}, byteorder=b"big")
    assert "big-endian" in refused(tmp_path / "m.bin")


def test_truncated_archive(tmp_path: Path) -> None:
    torch_files.write(tmp_path / "m.bin", {"w": np.zeros((4, 4), np.float32)})
    content = (tmp_path / "m.bin").read_bytes()
    for n in (3, 50, len(content) // 2, len(content) - 1):
        (tmp_path / "m.bin").write_bytes(content[:n])
        assert "download" in refused(tmp_path / "m.bin")


def test_member_header_that_lies(tmp_path: Path) -> None:
    torch_files.write(tmp_path / "m.bin", {"w": np.zeros((4, 4), np.float32)})
    content = bytearray((tmp_path / "m.bin").read_bytes())
    local = content.index(b"archive/data/0") - 30
    content[local + 26 : local + 30] = struct.pack("<HH", 65535, 65535)
    (tmp_path / "m.bin").write_bytes(content)
    assert "damaged" in refused(tmp_path / "m.bin")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "not a PyTorch"), (b"hello", "not a PyTorch"), (b"version https://git-lfs.github.com/", "Git LFS")],
)
def test_other_files(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.bin").write_bytes(content)
    assert words in refused(tmp_path / "m.bin")


def test_archive_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.bin", "w") as z:
        z.writestr("a.txt", "a")
    assert "without a PyTorch checkpoint" in refused(tmp_path / "m.bin")


def test_a_bomb_of_sets_is_refused_before_it_is_run(tmp_path: Path) -> None:
    torch_files.archive(tmp_path / "m.bin", b"\x80\x04" + b"\x8f" * (16 << 20) + b".", {})
    assert "has the step EMPTY_SET, which no tensors need" in refused(tmp_path / "m.bin")


def test_too_many_steps_are_refused(tmp_path: Path) -> None:
    torch_files.archive(tmp_path / "m.bin", b"\x80\x02(" + b"]" * (1 << 20) + b"l.", {})
    assert "has more than 524288 steps" in refused(tmp_path / "m.bin")


def test_compressed_parts_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", torch_files.state_dict({}))
    assert "its parts are compressed, which PyTorch never does" in refused(tmp_path / "m.bin")


def test_methods_that_a_pickle_sets_are_not_called(tmp_path: Path) -> None:
    """BUILD gives an OrderedDict attributes of its own, `items` and `get` among them."""
    own = b"}(" + torch_files.text("items") + b"N" + torch_files.text("get") + b"N" + torch_files.text("keys") + b"Nu"
    torch_files.archive(tmp_path / "m.bin", b"\x80\x02ccollections\nOrderedDict\n)R" + own + b"b.", {})
    assert index(str(tmp_path / "m.bin")) == {}


def test_names_of_parts_that_are_no_utf_8(tmp_path: Path) -> None:
    torch_files.archive(tmp_path / "m.bin", torch_files.state_dict({}), {}, **{"é": b""})
    data = (tmp_path / "m.bin").read_bytes()
    (tmp_path / "m.bin").write_bytes(data.replace("é".encode(), b"\xff\xfe"))
    assert "damaged" in refused(tmp_path / "m.bin")


@pytest.mark.parametrize("large", [False, True])
def test_a_list_of_parts_that_would_fill_memory(tmp_path: Path, large: bool) -> None:
    torch_files.archive(tmp_path / "m.bin", torch_files.state_dict({}), {})
    data = bytearray((tmp_path / "m.bin").read_bytes())
    at = data.rfind(b"PK\5\6")
    if large:  # the record of large archives says it
        size = struct.unpack_from("<I", data, at + 12)[0]
        record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 1 << 30, at - size)
        data[at:at] = record + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    else:
        struct.pack_into("<I", data, at + 12, 1 << 30)
    (tmp_path / "m.bin").write_bytes(data)
    assert "its list of parts takes 1073741824 bytes" in refused(tmp_path / "m.bin")
