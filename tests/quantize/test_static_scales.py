"""Scales of activations that a file carries: where they may be, and that all else stays as it is."""

from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.errors import UnsupportedError, UsageError
from edgeq.quantize.pipeline import convert
from edgeq.quantize.requantize import requantize
from edgeq.quantize.static_scales import set_scales

NAME = "blk.0.attn_q.weight"


def test_converting_with_scales_is_setting_them_later(tiny_model: Path, tmp_path: Path) -> None:
    convert(tiny_model, tmp_path / "with.eqf", "I8_R", activation_scales={NAME: 0.1})
    convert(tiny_model, tmp_path / "without.eqf", "I8_R")
    set_scales(tmp_path / "without.eqf", tmp_path / "set.eqf", {NAME: 0.1})
    assert (tmp_path / "with.eqf").read_bytes() == (tmp_path / "set.eqf").read_bytes()
    with open_file(tmp_path / "set.eqf") as file:
        file.verify()
        assert {name for name, info in file.tensors.items() if info.activation_scale is not None} == {NAME}
        assert file.tensors[NAME].activation_scale == float(np.float32(0.1))
    set_scales(tmp_path / "set.eqf", tmp_path / "again.eqf", {})
    assert (tmp_path / "again.eqf").read_bytes() == (tmp_path / "without.eqf").read_bytes()
    requantize(tmp_path / "set.eqf", tmp_path / "same.eqf", "I8_R")
    requantize(tmp_path / "set.eqf", tmp_path / "other.eqf", "Q8_0")
    with open_file(tmp_path / "same.eqf") as same, open_file(tmp_path / "other.eqf") as other:
        assert same.tensors[NAME].activation_scale == float(np.float32(0.1))
        assert other.tensors[NAME].activation_scale is None


def test_what_takes_no_scale_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"tensor {NAME}: Q8_0 takes no scale of activations, only types"):
        convert(tiny_model, tmp_path / "m.eqf", "Q8_0", activation_scales={NAME: 0.1})
    with pytest.raises(UsageError, match=r"has no tensor blk\.99\.x, for which there is a scale"):
        convert(tiny_model, tmp_path / "m.eqf", "I8_R", activation_scales={"blk.99.x": 0.1})
    assert not (tmp_path / "m.eqf").exists()
    for scale in (0.0, -1.0, float("nan"), float("inf"), 1e-31, 1e31):
        with pytest.raises(UnsupportedError, match=r"m: its scale of activations, .* between 2\*\*-100 and 2\*\*100"):
            Writer(
                tmp_path / "m.eqf", [TensorSpec("m", (16, 32), "I8_R", scale)], {"architecture": "x", "config": {}}, {}
            )
