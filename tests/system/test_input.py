"""Files that several threads read: also where the system has one place per open file."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeq.system.input import InputFile

CONTENT = bytes(range(256)) * 4000


@pytest.fixture(params=["preadv", "seek"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "seek":
        monkeypatch.delattr(os, "preadv", raising=False)
    (tmp_path / "one").write_bytes(CONTENT)
    return tmp_path / "one"


def test_places(path: Path) -> None:
    file = InputFile(path)
    assert file.nbytes == len(CONTENT)
    assert file.read(5, 254) == bytes([254, 255, 0, 1, 2])
    assert file.read(10, len(CONTENT) - 3) == CONTENT[-3:]
    assert file.read(10, len(CONTENT)) == b"" == file.read(0, 7)
    target = bytearray(7)
    assert file.read_into(memoryview(target)[2:], 1) == 5 and target == bytes([0, 0, 1, 2, 3, 4, 5])


def test_requests_are_split(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems read no more than some 2 GB at once."""
    monkeypatch.setattr("edgeq.system.input._MOST", 1000)
    assert InputFile(path).read(5500, 100) == CONTENT[100:5600]


def test_threads_do_not_disturb_one_another(path: Path) -> None:
    file = InputFile(path)
    places = [(i * 7919) % (len(CONTENT) - 1000) for i in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda at: file.read(1000, at), places))
    assert all(content == CONTENT[at : at + 1000] for content, at in zip(read, places, strict=True))


def test_closed_twice_or_dropped(path: Path) -> None:
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
    file = InputFile(path)
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1, 0)
    dropped = InputFile(path)
    del dropped, file
    gc.collect()
    assert before == (sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else [])
    with pytest.raises(FileNotFoundError):
        InputFile(path.with_name("none"))
