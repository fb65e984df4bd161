"""Encoders as GGUF files and back: tensors, vocabulary, pooling."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentence_encoder

import edgeq
from edgeq.errors import TokenizerError, UnsupportedError
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.importer import import_gguf

TEXTS = ["abc. de", "é f", "", "x?"]


def exported(folder: Path, kind: str = "F32", **files) -> Path:
    edgeq.convert(sentence_encoder.write(folder / "checkpoint", **files), folder / "m.eqf", kind)
    export_gguf(folder / "m.eqf", folder / "m.gguf")
    return folder / "m.gguf"


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_the_same_vectors(kind: str, tmp_path: Path):
    import_gguf(exported(tmp_path, kind), tmp_path / "back.eqf")
    with edgeq.load(tmp_path / "m.eqf", threads=1) as model, edgeq.load(tmp_path / "back.eqf", threads=2) as back:
        assert back.file.metadata["config"]["model_type"] == "bert"
        assert [back.embedder.tokens(text) for text in TEXTS] == [model.embedder.tokens(text) for text in TEXTS]
        np.testing.assert_array_equal(back.embed(TEXTS, normalize=False), model.embed(TEXTS, normalize=False))
    export_gguf(tmp_path / "back.eqf", tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


@pytest.mark.parametrize(("mode", "number"), [("mean_tokens", 1), ("cls_token", 2), ("lasttoken", 3)])
def test_pooling(mode: str, number: int, tmp_path: Path):
    path = exported(tmp_path, pooling={f"pooling_mode_{mode}": True})
    fields = gguf.GGUFReader(path).fields
    assert fields["bert.pooling_type"].contents() == number
    assert fields["bert.attention.causal"].contents() is False
    import_gguf(path, tmp_path / "back.eqf")
    with edgeq.load(tmp_path / "m.eqf") as model, edgeq.load(tmp_path / "back.eqf") as back:
        assert back.embedder.settings.pooling == model.embedder.settings.pooling


def test_settings_that_gguf_has_no_key_for_are_told(tmp_path: Path):
    edgeq.convert(sentence_encoder.write(tmp_path / "c", {"pooling_mode_max_tokens": True}), tmp_path / "m.eqf", "F32")
    notes = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf").notes
    assert [note.partition(":")[0] for note in notes] == [
        "GGUF has no max pooling",
        "GGUF cannot say that vectors get the length 1",
        "GGUF cannot say that texts are cut to 12 tokens",
    ]
    assert "bert.pooling_type" not in gguf.GGUFReader(tmp_path / "m.gguf").fields
    edgeq.convert(sentence_encoder.write(tmp_path / "d", modules=None, most=None), tmp_path / "n.eqf", "F32")
    assert export_gguf(tmp_path / "n.eqf", tmp_path / "n.gguf").notes == []


def test_a_vocabulary_with_capitals_is_refused(tmp_path: Path):
    folder = sentence_encoder.write(tmp_path / "c")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    with pytest.raises(TokenizerError, match=r"m\.eqf: tokenizer\.json keeps capitals or accents"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")


def test_another_activation_is_refused(tmp_path: Path):
    folder = sentence_encoder.write(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    with pytest.raises(UnsupportedError, match="hidden_act is relu, GGUF's bert has gelu"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
