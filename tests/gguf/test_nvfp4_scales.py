"""GGUF's NVFP4 tensors with scales beside them, as llama.cpp's converter writes ModelOpt's checkpoints."""

import re
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

import gguf_oracle  # noqa: E402
from gguf_models import write  # noqa: E402  (it needs gguf)

from edgeq.blocks.reference import decode  # noqa: E402
from edgeq.container.gguf_reader import open_gguf  # noqa: E402
from edgeq.container.reader import open_file  # noqa: E402
from edgeq.errors import EdgeqError, UnsupportedError  # noqa: E402
from edgeq.gguf.export_plan import AS_Q8_0  # noqa: E402
from edgeq.gguf.exporter import export_gguf  # noqa: E402
from edgeq.gguf.import_plan import ROUNDED, WIDENED  # noqa: E402
from edgeq.gguf.importer import import_gguf  # noqa: E402

KINDS = {"ffn_up": "NVFP4", "ffn_down": "NVFP4"}
NAME = "blk.1.ffn_up"


def weights(path: Path) -> np.ndarray:
    with open_file(path) as file:
        assert f"{NAME}.scale" not in file.tensors
        info = file.tensors[f"{NAME}.weight"]
        return decode(file.data(info.name), *info.shape, info.type)


@pytest.mark.parametrize(("scale", "how"), [(0.25, WIDENED), (3.1e-5, ROUNDED)])
def test_weights_are_multiplied(scale: float, how: str, tmp_path: Path) -> None:
    tensors = write(tmp_path / "m.gguf", KINDS, beside={f"{NAME}.scale": np.float32([scale])})
    report = import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    assert {t.how for t in report.tensors if t.name == f"{NAME}.weight"} == {how}
    said = [
        note for note in report.notes if note.startswith("NVFP4 scales are rounded in 1 tensor, RMS error up to 0.0")
    ]
    assert len(said) == (how == ROUNDED)
    expected = gguf_oracle.dequantize(tensors[f"{NAME}.weight"], "NVFP4") * np.float32(scale)
    found = weights(tmp_path / "m.eqf")
    np.testing.assert_allclose(found, expected, rtol=0 if how == WIDENED else 2**-11)
    with pytest.raises(UnsupportedError, match=r"GGUF has no type NVFP4_W: --fallback"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "back.gguf")
    again = export_gguf(tmp_path / "m.eqf", tmp_path / "back.gguf", AS_Q8_0)
    assert [t.type for t in again.tensors if t.name == f"{NAME}.weight"] == ["Q8_0"]


def test_far_scales_are_said_to_be_rounded(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tensors = write(path, KINDS)
    with open_gguf(path) as file:
        offset = file.tensors[f"{NAME}.weight"].offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = far = bytes([1, 0x7E, 1, 1])
    path.write_bytes(data)
    tensors[f"{NAME}.weight"].reshape(-1)[:4] = list(far)
    report = import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    ways = {t.name: t.how for t in report.tensors if t.source_type == "NVFP4"}
    assert ways.pop(f"{NAME}.weight") == ROUNDED and set(ways.values()) == {WIDENED}
    expected = gguf_oracle.dequantize(tensors[f"{NAME}.weight"], "NVFP4")
    error = weights(tmp_path / "m.eqf") - expected
    assert np.abs(error).max() <= 448 * 6 / 128
    told = re.search(r"rounded in 1 tensor, RMS error up to ([\d.]+)% of the weights", "\n".join(report.notes))
    measured = 100 * float(np.sqrt(np.square(error, dtype="f8").sum() / np.square(expected, dtype="f8").sum()))
    assert told and abs(float(told[1]) - measured) <= 0.3 * measured + 0.005


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (np.float32([1, 2]), r"blk.1.ffn_up.scale is F32 \[2\], not F32 \[1\]"),
        (np.float32([np.nan]), r"blk.1.ffn_up.scale has a value that is not finite"),
        (np.float32([1e30]), r"blk.1.ffn_up.weight has a scale that is too large"),
    ],
)
def test_scales_that_cannot_be(scale: np.ndarray, message: str, tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", KINDS, beside={f"{NAME}.scale": scale})
    with pytest.raises(EdgeqError, match=message):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")


def test_other_types_have_no_such_scale(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", "Q8_0", beside={f"{NAME}.scale": np.float32([2])})
    with pytest.raises(UnsupportedError, match=r"has blk.1.ffn_up.scale, which llama is not computed with"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
