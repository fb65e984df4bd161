"""The writer: what it writes is what was given, whole or not at all."""

import errno
import os
import resource
import signal
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.blocks.table import tensor_bytes
from edgeq.container.reader import open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.errors import OutputError, UnsupportedError

METADATA: dict[str, Any] = {"architecture": "llama", "config": {"model_type": "llama", "name": "é"}}
SPECS = [
    TensorSpec("token_embd.weight", (50, 64), "Q4_K"),
    TensorSpec("output_norm.weight", (7,), "F32"),
    TensorSpec("output.weight", (50, 40), "BF16"),
]
ASSETS = {"tokenizer.json": b"{}\r\n\0", "chat_template.jinja": b"", "config.json": b"x" * 1000}


def contents() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {s.name: rng.integers(0, 256, tensor_bytes(s.type, s.shape), np.uint8) for s in SPECS}


def write(path: Path, chunk: int = 1 << 20) -> None:
    with Writer(path, SPECS, METADATA, ASSETS) as w:
        for name, data in contents().items():
            for start in range(0, len(data), chunk):
                w.write(name, data[start : start + chunk])


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.eqf"
    write(path, chunk=1000)
    with open_file(path) as f:
        assert f.metadata == METADATA
        assert [(t.name, t.shape, t.type) for t in f.tensors.values()] == [(s.name, s.shape, s.type) for s in SPECS]
        for name, data in contents().items():
            assert np.array_equal(f.data(name), data)
            assert f.tensors[name].crc32 == zlib.crc32(data)
        assert {name: f.asset(name) for name in f.assets} == ASSETS
        f.verify()


def test_layout_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.eqf"
    write(path)
    data = path.read_bytes()
    magic, version, length, crc = struct.unpack_from("<8sIQI", data)
    assert magic == bytes.fromhex("894551460d0a1a0a") and version == 2
    assert zlib.crc32(data[24 : 24 + length]) == crc
    with open_file(path) as f:
        offsets = [t.offset for t in f.tensors.values()]
        assert offsets[0] == 65536
        assert all(o % 64 == 0 for o in offsets) and all(a.offset % 64 == 0 for a in f.assets.values())
        assert f.nbytes == len(data)


def test_order_and_chunks_do_not_change_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.eqf")
    with Writer(tmp_path / "b.eqf", SPECS, METADATA, ASSETS) as w:
        for name, data in reversed(contents().items()):
            w.write(name, data[:100])
            w.write(name, memoryview(data[100:].tobytes()))
    assert (tmp_path / "a.eqf").read_bytes() == (tmp_path / "b.eqf").read_bytes()


def test_header_longer_than_a_page(tmp_path: Path) -> None:
    specs = [TensorSpec(f"blk.{i}.attn_norm.weight", (16,), "F32") for i in range(1500)]
    with Writer(tmp_path / "m.eqf", specs, METADATA, {}) as w:
        for i, s in enumerate(specs):
            w.write(s.name, np.full(16, i, np.float32))
    with open_file(tmp_path / "m.eqf") as f:
        first = f.tensors["blk.0.attn_norm.weight"].offset
        assert first > 65536 and first % 65536 == 0
        assert (f.data("blk.1499.attn_norm.weight").view(np.float32) == 1499).all()
        f.verify()


def only(folder: Path, *names: str) -> None:
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "m.eqf").write_bytes(b"old")
    with pytest.raises(error), Writer(tmp_path / "m.eqf", SPECS, METADATA, ASSETS) as w:
        w.write("output_norm.weight", bytes(28))
        raise error
    assert (tmp_path / "m.eqf").read_bytes() == b"old"
    only(tmp_path, "m.eqf")


def test_incomplete_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only 0 were written"), Writer(tmp_path / "m.eqf", SPECS, METADATA, {}):
        pass
    only(tmp_path)


def test_too_much_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="29 were written"),
        Writer(tmp_path / "m.eqf", SPECS, METADATA, {}) as w,
    ):
        w.write("output_norm.weight", bytes(29))
    only(tmp_path)


def test_existing_file_is_replaced_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.eqf").write_bytes(b"old")
    (tmp_path / "link.eqf").symlink_to("real.eqf")
    write(tmp_path / "link.eqf")
    assert (tmp_path / "link.eqf").is_symlink()
    with open_file(tmp_path / "real.eqf") as f:
        f.verify()


def test_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    write(tmp_path / "m.eqf")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "m.eqf").stat().st_mode & 0o777 == 0o666 & ~mask


def fails(path: Path) -> str:
    with pytest.raises(OutputError) as caught:
        write(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_missing_folder(tmp_path: Path) -> None:
    assert "does not exist" in fails(tmp_path / "none" / "m.eqf")


def test_not_a_regular_file(tmp_path: Path) -> None:
    assert "regular file" in fails(tmp_path)
    assert "regular file" in fails(Path("/dev/null"))


def test_no_room_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    assert "make room" in fails(tmp_path / "m.eqf")
    only(tmp_path)


def test_disk_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = os.pwrite, 0

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        nonlocal written
        written += len(data)
        if written > 5000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert "disk is full" in fails(tmp_path / "m.eqf")
    only(tmp_path)


def test_file_size_limit(tmp_path: Path) -> None:
    """A limit of the operating system stops a real write in the middle."""
    assert threading.current_thread() is threading.main_thread()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (70000, limits[1]))
        message = fails(tmp_path / "m.eqf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "more than a file may have" in message
    only(tmp_path)


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (TensorSpec("a", (3, 33), "Q4_K"), UnsupportedError),
        (TensorSpec("a", (3,), "F16"), UnsupportedError),
        (TensorSpec("a", (3, 64), "Q9"), UnsupportedError),
        (TensorSpec("../a", (3, 64), "F32"), ValueError),
    ],
)
def test_impossible_tensors(tmp_path: Path, spec: TensorSpec, error: type[Exception]) -> None:
    with pytest.raises(error):
        Writer(tmp_path / "m.eqf", [spec], METADATA, {})


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        Writer(tmp_path / "m.eqf", [SPECS[0], SPECS[0]], METADATA, {})
    with pytest.raises(ValueError, match="asset name"):
        Writer(tmp_path / "m.eqf", [], METADATA, {"a/b": b""})
    with pytest.raises(ValueError, match="architecture"):
        Writer(tmp_path / "m.eqf", [], {}, {})
