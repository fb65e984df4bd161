"""show and verify, of whatever can be run: nothing is converted for it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import edgeq as package


@pytest.fixture(scope="module")
def gguf(tmp_path_factory, tiny_model: Path) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    package.convert(tiny_model, path, "Q8_0")
    return path


@pytest.fixture(autouse=True)
def no_models_are_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgeq.system.environment.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def checkpoint(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "tiny")


def test_a_gguf_file_is_shown_as_it_is(edgeq, gguf: Path, tiny_model: Path, tmp_path: Path):
    config = json.loads((tiny_model / "config.json").read_text())
    facts = json.loads(edgeq("show", gguf, "--json", "--tensors").out)
    assert (facts["format"], facts["architecture"], facts["problem"]) == ("gguf", "llama", None)
    assert facts["bytes"] == gguf.stat().st_size and facts["files"] == [str(gguf)]
    assert (facts["layers"], facts["context"]) == (config["num_hidden_layers"], config["max_position_embeddings"])
    assert facts["vocabulary"] == config["vocab_size"]
    assert facts["types"]["Q8_0"]["bits_per_weight"] == 8.5 and facts["types"]["Q8_0"]["tensors"] == 43
    assert facts["metadata"]["general.name"] == "tiny_model"
    assert facts["metadata"]["tokenizer.ggml.tokens"] == f"{config['vocab_size']} values"
    template = json.loads((tiny_model / "tokenizer_config.json").read_text())["chat_template"]
    assert facts["chat_template"] == template
    assert {
        "name": "output_norm.weight",
        "shape": [192],
        "type": "F32",
        "bytes": 768,
        "bits_per_weight": 32.0,
    } in facts["tensors"]
    text = edgeq("show", gguf).out
    assert "general.name" in text and "GGUF" in text and "blk.0.attn_q.weight" not in text
    assert "blk.0.attn_q.weight" in edgeq("show", gguf, "--tensors").out
    assert not (tmp_path / "cache").exists(), "nothing was imported"


def test_a_gguf_file_that_does_not_run_here_is_shown_too(edgeq, gguf: Path, tmp_path: Path):
    other = tmp_path / "other.gguf"
    content = gguf.read_bytes().replace(b"llama", b"rwkv6").replace(b"tiny_model", b"tiny\x1b[2Jxx")
    other.write_bytes(content)
    facts = json.loads(edgeq("show", other, "--json").out)
    assert facts["architecture"] == "rwkv6" and facts["layers"] == 6
    assert facts["problem"].startswith("architecture 'rwkv6' cannot be imported")
    text = edgeq("show", other).out
    assert "does not run" in text and "\x1b" not in text, "what a file says does not rule the terminal"


def test_a_checkpoint_is_shown_as_it_is(edgeq, checkpoint: Path, tmp_path: Path):
    for model in (checkpoint, checkpoint / "model.safetensors"):
        facts = json.loads(edgeq("show", model, "--json", "--tensors").out)
        assert (facts["format"], facts["architecture"], facts["problem"]) == ("checkpoint", "llama", None)
        assert (facts["layers"], facts["vocabulary"]) == (6, 2048)
        assert facts["types"] == {
            "BF16": {"tensors": 56, "parameters": 3197376, "bytes": 6394752, "bits_per_weight": 16.0}
        }
        assert facts["bytes"] > 6394752 and "tokenizer.json" in facts["assets"]
    assert "Hugging Face checkpoint" in edgeq("show", checkpoint).out
    (checkpoint / "config.json").write_text('{"model_type": "rwkv"}')
    assert "model_type 'rwkv' is not supported" in json.loads(edgeq("show", checkpoint, "--json").out)["problem"]
    assert not (tmp_path / "cache").exists()


def test_verify_says_what_it_could_check(edgeq, gguf: Path, checkpoint: Path, tmp_path: Path):
    package.convert(checkpoint, tmp_path / "m.eqf", "F16")
    for model, checksums, tensors in ((gguf, False, 56), (checkpoint, False, 56), (tmp_path / "m.eqf", True, 56)):
        result = edgeq("verify", model)
        assert result.code == 0 and f"{model}: sound: {tensors} tensors" in result.out
        assert ("it has no checksums" in result.out) is not checksums
        facts = json.loads(edgeq("verify", model, "--json").out)
        assert (facts["sound"], facts["checksums"], facts["tensors"]) == (True, checksums, tensors)
    assert not (tmp_path / "cache").exists()


def refused(edgeq, model: Path, message: str) -> None:
    result = edgeq("verify", model)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err and result.err.count(str(model)) == 1
    result = edgeq("verify", model, "--json")
    facts = json.loads(result.out)
    assert result.code == 2 and facts["sound"] is False and message in facts["problem"]


def test_verify_finds_what_is_wrong(edgeq, gguf: Path, checkpoint: Path, tmp_path: Path):
    content = gguf.read_bytes()
    cut, damaged = tmp_path / "cut.gguf", tmp_path / "damaged.gguf"
    cut.write_bytes(content[:-4096])
    refused(edgeq, cut, "is truncated")
    damaged.write_bytes(content[:-3400] + b"\xff" * 34 * 4 + content[34 * 4 - 3400 :])
    refused(edgeq, damaged, "that is not finite: download or copy it again")
    weights = load_file(checkpoint / "model.safetensors")
    weights = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    save_file({**weights, "model.norm.weight": np.full(192, np.nan, np.float32)}, checkpoint / "model.safetensors")
    refused(edgeq, checkpoint, "tensor 'model.norm.weight' holds nan")
    weights.pop("model.norm.weight")
    save_file(weights, checkpoint / "model.safetensors")
    refused(edgeq, checkpoint, "has no tensor 'model.norm.weight'")
    (checkpoint / "tokenizer.json").write_text("{")
    refused(edgeq, checkpoint, "tokenizer.json cannot be read")


def test_verify_of_a_checkpoint_without_a_tokenizer_says_so(edgeq, checkpoint: Path):
    (checkpoint / "tokenizer.json").unlink()
    result = edgeq("verify", checkpoint)
    assert result.code == 0 and result.out.startswith("note: there is no tokenizer")
