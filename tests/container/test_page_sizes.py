"""Kernels have pages of 4, 16 (Raspberry Pi 5, Apple) or 64 KiB (some AArch64 servers): files must suit them all."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.graph.aligned import aligned


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose header is longer than a page of 64 KiB, and whose last tensor ends within a page."""
    path = tmp_path / "m.eqf"
    specs = [TensorSpec("a.weight", (16, 32), "Q8_0"), TensorSpec("b.weight", (5,), "F32")]
    metadata = {"architecture": "llama", "config": {}, "note": "x" * 70000}
    with Writer(path, specs, metadata, {"c": b"12"}) as writer:
        writer.write("a.weight", np.arange(768, dtype=np.uint8).tobytes())
        writer.write("b.weight", np.arange(5, dtype=np.float32).tobytes())
    return path


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_tensors_can_be_mapped_by_themselves(path: Path, page: int) -> None:
    """A system with such pages refuses other offsets with EINVAL."""

    def paged(fd: int, length: int, *, access: int, offset: int = 0) -> mmap.mmap:
        if offset % page:
            raise OSError(22, "Invalid argument")
        return mmap.mmap(fd, length, access=access, offset=offset)

    with open_file(path) as file:
        first = min(info.offset for info in file.tensors.values())
        assert first % page == 0, "so that the tensors can be mapped or locked by themselves"
        assert file.data("b.weight").view(np.float32).tolist() == [0, 1, 2, 3, 4]
        with path.open("rb") as raw, paged(raw.fileno(), 0, access=mmap.ACCESS_READ, offset=first) as section:
            assert section[:768] == file.data("a.weight").tobytes()


@pytest.mark.parametrize("nbytes", [1, 4095, 16384, 65537])
def test_buffers_are_aligned_wherever_pages_are(nbytes: int) -> None:
    memory = aligned(nbytes)
    assert memory.ctypes.data % 64 == 0 and memory.nbytes == nbytes and not memory.any()
