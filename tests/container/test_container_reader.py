"""The reader: maps without copying, opens in the time of the header, finds damage."""

import os
import struct
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import File, open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.errors import ChecksumError, FormatError, UsageError
from edgeq.system.input import InputFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    specs = [TensorSpec(f"blk.{i}.ffn_norm.weight", (100_000,), "F32") for i in range(20)]
    with Writer(tmp_path / "m.eqf", specs, {"architecture": "llama", "config": {}}, {"tokenizer.json": b"{}"}) as w:
        for i, s in enumerate(specs):
            w.write(s.name, np.full(100_000, i, np.float32))
    return tmp_path / "m.eqf"


def test_data_is_a_read_only_view(path: Path) -> None:
    with open_file(path) as f:
        data = f.data("blk.3.ffn_norm.weight")
        assert data.dtype == np.uint8 and data.base is not None and not data.flags.writeable
        assert data.ctypes.data % 64 == 0
        assert data.ctypes.data == f.data("blk.3.ffn_norm.weight").ctypes.data
        with pytest.raises(ValueError):
            data[0] = 1
        with pytest.raises(ValueError):
            data.setflags(write=True)


def test_views_outlive_the_file(path: Path) -> None:
    with open_file(path) as f:
        data = f.data("blk.3.ffn_norm.weight")
    assert (data.view(np.float32) == 3).all()


def test_reading_ahead_asks_for_every_byte_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    done = threading.Event()

    def advise(fd: int, offset: int, length: int, advice: int) -> None:
        assert os.fstat(fd).st_size == path.stat().st_size and advice == os.POSIX_FADV_WILLNEED
        asked.append((offset, offset + length))
        if asked[-1][1] >= path.stat().st_size:
            done.set()

    monkeypatch.setattr(os, "posix_fadvise", advise)
    with open_file(path) as f:
        f.read_ahead()
    assert done.wait(10)  # also after the file was closed
    assert asked[0][0] == 0 and all(end == start for (_, end), (start, _) in pairwise(asked))
    with pytest.raises(UsageError):
        f.read_ahead()


def test_reading_ahead_but_for_some_tensors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()
    done = threading.Event()

    def advise(fd: int, offset: int, length: int, advice: int) -> None:
        asked.update(range(offset, offset + length))
        if offset + length >= path.stat().st_size:
            done.set()

    monkeypatch.setattr(os, "posix_fadvise", advise)
    with open_file(path) as f:
        name = list(f.tensors)[1]
        info = f.tensors[name]
        f.read_ahead([name, "no such tensor"])
    assert done.wait(10)
    assert asked == set(range(path.stat().st_size)) - set(range(info.offset, info.offset + info.nbytes))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs Linux's list of mapped pages")
def test_a_tensor_that_is_let_go_comes_back(tmp_path: Path) -> None:
    values = np.arange(1 << 20, dtype=np.float32)
    path, specs = tmp_path / "m.eqf", [TensorSpec("a", values.shape, "F32"), TensorSpec("b", values.shape, "F32")]
    with Writer(path, specs, {"architecture": "none", "config": {}}, {}) as writer:
        for spec in specs:
            writer.write(spec.name, values)

    def resident() -> int:
        """KiB of the file."""
        found, here = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if "-" in line.split(" ")[0]:
                here = line.endswith(str(path))
            elif here and line.startswith("Rss:"):
                found += int(line.split()[1])
        return found

    with open_file(path) as f:
        assert all((f.data(name).view(np.float32) == values).all() for name in ("a", "b"))
        before = resident()
        f.let_go("b")
        assert before >= 8 << 10 and resident() <= before - (4 << 10) + 64
        assert (f.data("b").view(np.float32) == values).all()


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is read from now on: how many bytes, from where."""
    real, read = InputFile.read_into, []

    def read_into(file: InputFile, target: memoryview, offset: int) -> int:
        read.append((real(file, target, offset), offset))
        return read[-1][0]

    monkeypatch.setattr(InputFile, "read_into", read_into)
    return read


def test_reading_through_tells_how_far_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, heard = watched(monkeypatch), []
    with open_file(path) as f:
        read.clear()  # the header
        f.read_through(lambda done, total: heard.append((done, total)))
    assert sum(count for count, _ in read) == path.stat().st_size and read[0][1] == 0
    assert heard[-1] == (path.stat().st_size, path.stat().st_size) and heard == sorted(heard)


def test_a_closed_file_says_so(path: Path) -> None:
    f = open_file(path)
    f.close()
    f.close()
    for use in (lambda: f.data("blk.3.ffn_norm.weight"), lambda: f.asset("tokenizer.json"), f.verify):
        with pytest.raises(UsageError, match="the file is closed"):
            use()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (struct.pack("<Q", 50) + b'{"a":{}}' + bytes(90), "is a checkpoint's weights.* `edgeq convert FOLDER`"),
        (b"PK\x03\x04" + bytes(90), "is a checkpoint's weights.* `edgeq convert FOLDER`"),
        (b"\x89EQP\r\n\x1a\n" + bytes(40), "is an evaluated text: give the model, and this by --prefix"),
        (b"something else", r"not an \.eqf file \(its first bytes are 73 6f 6d 65 74 68 69 6e\)"),
    ],
)
def test_what_is_no_eqf_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.eqf").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        open_file(tmp_path / "m.eqf")


def test_open_reads_only_the_header(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = watched(monkeypatch)
    open_file(path).close()
    assert 0 < sum(count for count, _ in read) < 8192 < path.stat().st_size


@pytest.mark.parametrize(
    "read",
    [lambda f: f.asset("tokenizer.json"), lambda f: f.verify(), lambda f: f.read_through(lambda done, total: None)],
    ids=["asset", "verify", "read_through"],
)
def test_a_disk_that_fails(path: Path, read: Callable[[File], object], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: InputFile, target: memoryview, offset: int) -> int:
        raise OSError(5, "Input/output error")

    with open_file(path) as f:
        monkeypatch.setattr(InputFile, "read_into", failing)
        with pytest.raises(FormatError, match=r"\.eqf: cannot be read: Input/output error: check the disk"):
            read(f)
    with pytest.raises(FormatError, match=r"\.eqf: cannot be read: Input/output error: check the disk"):
        open_file(path)


def test_verify_reports_progress(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with open_file(path) as f:
        f.verify(lambda done, total: seen.append((done, total)), threads=1)
    total = 20 * 400_000 + 2
    assert seen[-1] == (total, total) and len(seen) == 21


@pytest.mark.parametrize("threads", [1, 3])
def test_verify_finds_one_flipped_bit(path: Path, threads: int) -> None:
    with open_file(path) as f:
        target = f.tensors["blk.17.ffn_norm.weight"]
    data = bytearray(path.read_bytes())
    data[target.offset + target.nbytes - 1] ^= 1
    path.write_bytes(data)
    with open_file(path) as f, pytest.raises(ChecksumError, match=r"blk\.17\.ffn_norm\.weight"):
        f.verify(threads=threads)


def test_damaged_asset_is_not_returned(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with open_file(path) as f, pytest.raises(ChecksumError, match=r"tokenizer\.json"):
        f.asset("tokenizer.json")


def test_every_truncation_is_refused(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for n in (0, 1, 8, 23, 24, 100, 65536, 65537, len(data) - 1):
        short = tmp_path / "short.eqf"
        short.write_bytes(data[:n])
        with pytest.raises(FormatError) as caught:
            open_file(short)
        assert str(caught.value).startswith(f"{short}: truncated")


def test_unknown_names(path: Path) -> None:
    with open_file(path) as f:
        with pytest.raises(KeyError):
            f.data("none")
        with pytest.raises(KeyError):
            f.asset("none")


def test_what_is_no_file(tmp_path: Path) -> None:
    for wrong, word in (
        (tmp_path, "a folder"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / "no", "no such file"),
    ):
        with pytest.raises(FormatError, match=word) as caught:
            open_file(wrong)
        assert str(caught.value).startswith(f"{wrong}: ")
