"""The error of a sample is about that of all weights."""

from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.blocks.reference import decode
from edgeq.container.reader import open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.kernels.encode_api import encode_panels
from edgeq.quantize.weight_error import sampled, weight_error


def test_of_a_model(tiny_model: Path, tmp_path: Path):
    for kind in ("BF16", "Q2_K"):
        edgeq.convert(tiny_model, tmp_path / f"{kind}.eqf", kind)
    changed = whole = 0.0
    with open_file(tmp_path / "BF16.eqf") as file, open_file(tmp_path / "Q2_K.eqf") as other:
        for name, info in file.tensors.items():
            if len(info.shape) > 1:
                exact, found = (decode(one.data(name), *info.shape, one.tensors[name].type) for one in (file, other))
                changed += float(np.square(exact - found).sum())
                whole += float(np.square(exact).sum())
        assert weight_error(sampled(file), other) == pytest.approx((changed / whole) ** 0.5, rel=0.1)
        assert weight_error(sampled(file), file) == 0


def test_of_experts_and_of_rows_that_fill_no_panel(tmp_path: Path):
    """Small matrices are sampled whole, each expert with its own padding."""
    weights = np.random.default_rng(0).normal(size=(2, 20, 64)).astype(np.float32)
    for kind in ("F32", "Q4_0"):
        metadata = {"architecture": "llama", "config": {}}
        with Writer(tmp_path / kind, [TensorSpec("a.weight", weights.shape, kind)], metadata, {}) as writer:
            for matrix in weights:
                writer.write("a.weight", encode_panels(matrix, kind))
    with open_file(tmp_path / "F32") as file, open_file(tmp_path / "Q4_0") as other:
        size = other.tensors["a.weight"].nbytes // 2
        found = [decode(other.data("a.weight")[i * size : (i + 1) * size], 20, 64, "Q4_0") for i in range(2)]
        sample = sampled(file)
        assert sorted(len(one.weights) for one in sample) == [4, 4, 16, 16] and {one.times for one in sample} == {1.0}
        expected = np.square(np.stack(found) - weights).sum() / np.square(weights).sum()
        assert weight_error(sample, other) == pytest.approx(float(expected) ** 0.5, rel=1e-5)
