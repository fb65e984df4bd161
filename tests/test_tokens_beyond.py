"""Models whose tokenizer has an added token more than their embedding has rows: a common fine-tune."""

import json
import shutil
from pathlib import Path

import pytest

import edgeq
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.importer import import_gguf


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> tuple[Path, int]:
    """The bundled model with a [PAD] more, and the number of its rows."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_model, folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    pad = {"content": "[PAD]", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    document["added_tokens"].append({"id": rows, "special": True, **pad})
    path.write_text(json.dumps(document))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["pad_token"] = "[PAD]"
    config.setdefault("added_tokens_decoder", {})[str(rows)] = {"special": True, **pad}
    path.write_text(json.dumps(config))
    return folder, rows


def test_its_name_is_text_and_conversion_says_so(checkpoint: tuple[Path, int], tmp_path: Path):
    folder, rows = checkpoint
    report = edgeq.convert(folder, tmp_path / "m.eqf", "Q8_0")
    assert report.notes == [f"the tokenizer's [PAD] ({rows}) is beyond the model's {rows} rows: it is taken as text"]
    with edgeq.load(tmp_path / "m.eqf") as model:
        talk = [{"role": "user", "content": "what is [PAD]?"}]
        assert list(model.chat(talk, max_tokens=2, temperature=0)), "and a conversation about it goes on"
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    assert import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf").notes == []
    with edgeq.load(tmp_path / "m.eqf") as model, edgeq.load(tmp_path / "back.eqf") as back:
        for text in ("what is [PAD]?", "[PAD]", "[PAD][PAD]"):
            assert max(model.tokenizer.encode(text)) < rows
            assert model.tokenizer.encode(text) == back.tokenizer.encode(text)
