"""bench/qat.py: what is trained, from where, and what is measured."""

import importlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.conversion.conversion import convert

torch = pytest.importorskip("torch", reason="needs torch: run tools/test --qat")
pytest.importorskip("transformers", reason="needs transformers: run tools/test --qat")

TEXT = "Once upon a time there was a little girl called Lily, who had a red ball and a dog. " * 20


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(edgeq.__path__[0]).parent / "bench"))
    return importlib.import_module("qat")


@pytest.fixture
def options(tiny_model, tmp_path):
    return Namespace(
        checkpoint=tiny_model,
        training=TEXT,
        judged=TEXT,
        types=["Q4_0"],
        minutes=0.01,
        rate=0.002,
        scales=0.001,
        vectors=0.001,
        rows=2,
        length=32,
        tokens=100,
        window=64,
        fixed_scales=False,
        float_inputs=False,
        checkpointing=True,
        seed=1,
        work=tmp_path,
    )


def test_batches_begin_as_texts_do_and_are_the_same_each_time(bench, options):
    tokens = np.arange(100, 400)
    first, again = (next(bench.batches(tokens, options, [7])) for _ in range(2))
    assert first.shape == (2, 32) and torch.equal(first, again)
    assert (first[:, 0] == 7).all() and (first[:, 2:] - first[:, 1:-1] == 1).all()


def test_a_row_for_each_way_and_files_of_one_size(bench, options, tiny_model, tmp_path):
    convert(tiny_model, tmp_path / f"{tiny_model.name}-Q4_0-calibrated.eqf", "Q4_0")  # is taken as it is
    (tmp_path / f"{tiny_model.name}.calib").touch()
    rows = list(bench.rows(options))
    assert [row.way for row in rows] == ["rounded", "calibrated", "trained"]
    assert len({row.nbytes // 4096 for row in rows}) == 1  # but for what metadata say of how they were made
    assert rows[0].kl == rows[1].kl > 0 and rows[2].steps > 0 and rows[2].kl != rows[0].kl
    assert all(row.positions == 100 and 0 < row.same_top <= 1 for row in rows)
