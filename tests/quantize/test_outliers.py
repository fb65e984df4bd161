"""Outliers: the channel that reaches furthest, and what scaling makes of it."""

from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write

from edgeq.blocks.reference import decode
from edgeq.container.reader import open_file
from edgeq.models import architecture
from edgeq.quantize.calibration import Calibration, Statistics
from edgeq.quantize.equalize import equalized, smoothed
from edgeq.quantize.outliers import Outlier, effects, outliers, ratio
from edgeq.quantize.pipeline import convert
from edgeq.quantize.sketch import Sketch

RNG = np.random.default_rng(8)


def read(x: np.ndarray) -> Statistics:
    x = x.astype(np.float32)
    return Statistics(np.square(x).sum(0), np.array([len(x)]), float(x.min()), float(x.max()), Sketch.of(x))


def rows(columns: int, channel: int, times: float) -> np.ndarray:
    x = RNG.uniform(-1, 1, (200, columns))
    x[:, channel] *= times
    return x


def test_the_furthest_channel_is_found_once_for_all_that_read_it():
    first, second = read(rows(64, 5, 50)), read(rows(64, 60, 4))
    known = {f"blk.0.{name}.weight": first for name in ("attn_q", "attn_k", "attn_v")}
    bare = Statistics(np.ones(64, np.float32), np.array([1]))
    found = outliers(Calibration("c", {"blk.0.ffn_up.weight": second, **known, "blk.1.attn_q.weight": bare}))
    assert [(one.name, one.channel) for one in found] == [("blk.0.attn_q.weight", 5), ("blk.0.ffn_up.weight", 60)]
    assert found[0].ratio == pytest.approx(50, rel=0.02)
    assert found[0].energy == pytest.approx(2500 / (2500 + 63), rel=0.02)
    assert str(Outlier("blk.0.attn_q.weight", 5, 50.04, 0.975)) == (
        "blk.0.attn_q.weight: channel 5 reaches 50 times the median, 97.5% of the energy"
    )
    assert ratio(np.zeros(4, np.float32)) == 0 and outliers(Calibration("c", {"a.weight": bare})) == []


def test_effects_are_those_of_the_scaled_model(tmp_path: Path):
    """The ratio after scaling is that of rows divided by what the columns of the weights were multiplied with."""
    convert(write("llama", tmp_path), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    with open_file(tmp_path / "m.eqf") as file:
        model = architecture(file.metadata["config"], file.path)
        shapes = {
            name: info.shape for name, info in file.tensors.items() if name.startswith("blk.") and len(info.shape) > 1
        }
        raw = {name: rows(shape[1], 7, 80) for name, shape in shapes.items() if shape[1] > 7}
        calibration = Calibration("c", {name: read(x) for name, x in raw.items()})
        found = {one.outlier.name: one for one in effects(file, model, calibration)}
        maxima = {name: calibration.sketch(name).channel_maxima for name in raw}
        equal = equalized(file, model, calibration.mean_square, set(file.tensors))
        smooth = smoothed(file, model, maxima.get, set(file.tensors))
        for name in ("blk.0.attn_q.weight", "blk.0.ffn_down.weight"):
            before, *after = (decode(one.data(name), *shapes[name], "F32") for one in (file, equal, smooth))
            left = [np.abs(raw[name] / (weights[0] / before[0])).max(0).astype(np.float32) for weights in after]
            one = found[name]
            assert (one.equalized, one.smoothed) == pytest.approx([ratio(x) for x in left], rel=1e-3)
            assert one.smoothed < one.equalized < one.outlier.ratio
        assert found["blk.0.attn_output.weight"].smoothed is None
