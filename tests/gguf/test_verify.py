"""What is found in a GGUF file that is damaged, type by type."""

from pathlib import Path

import numpy as np
import pytest

from edgeq.blocks.gguf_types import GGUF_TYPES
from edgeq.container.gguf_reader import open_gguf
from edgeq.errors import EdgeqError, FormatError
from edgeq.gguf.verify import verify

gguf = pytest.importorskip("gguf")

from gguf_models import write  # noqa: E402  (it needs gguf)

HELD = [t.name for t in GGUF_TYPES.values() if t.held]


def damage(path: Path, tensor: str, row: int, content: bytes) -> None:
    """Write over the beginning of a row."""
    with open_gguf(path) as file:
        info = file.tensors[tensor]
    data = bytearray(path.read_bytes())
    at = info.offset + row * info.nbytes // info.shape[0]
    data[at : at + len(content)] = content
    path.write_bytes(data)


@pytest.mark.parametrize("kind", HELD)
def test_a_scale_that_is_not_finite_is_found_in_every_type(kind: str, tmp_path: Path):
    path, heard = tmp_path / "m.gguf", []
    write(path, kind)
    with open_gguf(path) as file:
        assert verify(file, lambda done, total: heard.append((done, total))) == []
        nbytes = next(t for t in GGUF_TYPES.values() if t.name == kind).block_bytes
    assert heard[-1][0] == heard[-1][1] > 0
    damage(path, "blk.1.ffn_up.weight", 37, b"\xff" * nbytes)
    what = "a value" if kind in ("F32", "F16", "BF16") else "a scale"
    message = rf"m.gguf: tensor 'blk.1.ffn_up.weight' has {what} in row 37 that is not finite: download or copy it"
    with open_gguf(path) as file, pytest.raises(FormatError, match=message):
        verify(file)


def test_a_vector_counts_too(tmp_path: Path):
    path = tmp_path / "m.gguf"
    write(path, "Q8_0")
    damage(path, "output_norm.weight", 3, np.float32(np.inf).tobytes())
    with open_gguf(path) as file, pytest.raises(FormatError, match=r"'output_norm\.weight' has a value in row"):
        verify(file)


def test_a_model_that_lacks_a_tensor_is_not_sound(tmp_path: Path):
    path = tmp_path / "m.gguf"
    write(path, "Q8_0")
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with open_gguf(path) as file, pytest.raises(EdgeqError, match=r"has no tensor blk\.1\.ffn_up\.weight"):
        verify(file)
