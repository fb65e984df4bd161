"""tools/make_sliced.py: a model that is turned and not cut computes what it did; a cut one has the rows asked for."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import UnsupportedError

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = "Once upon a time there was a little girl who had a red ball. She liked to play with it in the garden. " * 8


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    return importlib.import_module("make_sliced")


@pytest.fixture
def original(tiny_model, tmp_path):
    edgeq.convert(tiny_model, tmp_path / "original.eqf", "F32")
    return tmp_path / "original.eqf"


def logits(path):
    with edgeq.load(path, threads=1, context=64) as model:
        return model.logits(model.tokenizer.encode(TEXT)[:32])


def test_turned_without_cutting_it_computes_the_same(tool, original, tmp_path):
    with open_file(original) as file:
        assert tool.write_sliced(file, TEXT, 192, tmp_path / "turned") == 1
    edgeq.convert(tmp_path / "turned", tmp_path / "turned.eqf", "F32")
    before, after = logits(original), logits(tmp_path / "turned.eqf")
    assert np.abs(before - after).max() < 0.02 * np.abs(before).max()  # it was rounded to BF16


def test_cut_it_has_rows_of_the_width(tool, original, tmp_path):
    with open_file(original) as file:
        assert 0.5 < tool.write_sliced(file, TEXT, 128, tmp_path / "cut") < 1
    edgeq.convert(tmp_path / "cut", tmp_path / "cut.eqf", "F32")
    with open_file(tmp_path / "cut.eqf") as file:
        shapes = {name: info.shape for name, info in file.tensors.items()}
    assert shapes["blk.0.ffn_up.weight"] == (640, 128) and shapes["blk.0.ffn_down.weight"] == (128, 640)
    assert shapes["blk.0.attn_output.weight"] == (128, 768) and shapes["blk.0.attn_k.weight"] == (256, 128)
    assert shapes["output.weight"] == shapes["token_embd.weight"] == (2048, 128)
    assert np.corrcoef(logits(original).ravel(), logits(tmp_path / "cut.eqf").ravel())[0, 1] > 0.5


def test_other_models_are_refused(tool, original, monkeypatch):
    with open_file(original) as file:
        monkeypatch.setitem(file.metadata["config"], "model_type", "mistral")
        with pytest.raises(UnsupportedError, match="no plain Llama"):
            tool.Whole(file).config  # noqa: B018
