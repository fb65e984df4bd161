"""calibrate: a checkpoint, a GGUF or an .eqf file with texts, to a file that llama.cpp's tools read, too."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edgeq as package
from edgeq.quantize.imatrix import read_calibration
from edgeq.system import environment

WORDS = "Once upon a time there was a little girl who lived near the sea. She liked to sing to the fish. "


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text(WORDS * 20)
    return path


@pytest.fixture(scope="module")
def calibrated(tiny_model: Path, text: Path, tmp_path_factory) -> Path:
    from edgeq.conversion.calibrating import calibrate
    from edgeq.conversion.passages import read_text

    out = tmp_path_factory.mktemp("calibrated") / "tiny.calib"
    calibrate(tiny_model, out, [read_text(text, "story")], tokens=208, length=64)
    return out


def matrices(path: Path) -> dict[str, np.ndarray]:
    return {name: one.mean_square for name, one in read_calibration(path).matrices.items()}


def test_a_checkpoint_is_calibrated_and_nothing_is_left(edgeq, tiny_model: Path, text: Path, tmp_path: Path):
    out = tmp_path / "m.calib"
    result = edgeq("calibrate", tiny_model, "--text", f"story={text}", "--tokens", 208, "--ctx-size", 64, "-o", out)
    assert (result.code, result.err) == (0, "")
    first, last = result.out.splitlines()
    assert first.startswith("story     208 tokens  perplexity ")
    assert last.startswith(f"{out}: tiny_model (llama, 6 layers of 192, 2048 tokens), 43 matrices, 208 tokens, ")
    assert [path.name for path in tmp_path.iterdir()] == ["m.calib"]
    found = read_calibration(out)
    assert [len(one) for one in found.sequences] == [64, 64, 64, 16]
    assert found.subject.name == "tiny_model" and found.corpora[0].tokens == 208


def test_other_forms_of_the_same_weights_give_the_same(edgeq, calibrated, tiny_model, text, tmp_path: Path):
    package.convert(tiny_model, tmp_path / "m.eqf", "BF16")
    package.convert(tiny_model, tmp_path / "m.gguf", "BF16")
    for form in ("m.eqf", "m.gguf"):
        out = tmp_path / f"{form}.calib"
        options = ("--text", text, "--tokens", 208, "--ctx-size", 64, "-o", out, "--threads", 1)
        assert edgeq("calibrate", tmp_path / form, *options).code == 0
        found, expected = matrices(out), matrices(calibrated)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected), form


def test_what_is_quantized_already_is_said(edgeq, tiny_model: Path, text: Path, tmp_path: Path, monkeypatch):
    package.convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    monkeypatch.chdir(tmp_path)
    result = edgeq("calibrate", "m.eqf", "--text", text, "--tokens", 100, "--random-tokens", 50, "--gram", "blk.0.*")
    assert result.out.splitlines()[0] == ("note: the model is quantized already (Q8_0): its original would tell more")
    found = read_calibration(tmp_path / "m.calib")
    assert {corpus.name for corpus in found.corpora} == {"story.txt", "random tokens"}
    grams = {name for name, one in found.matrices.items() if one.gram is not None}
    assert grams >= {"blk.0.attn_q.weight", "blk.0.ffn_down.weight"} and "blk.1.attn_q.weight" not in grams


def test_the_shipped_texts_are_the_default(edgeq, tiny_model: Path, tmp_path: Path):
    out = tmp_path / "m.calib"
    result = edgeq("calibrate", tiny_model, "--tokens", 800, "--ctx-size", 32, "-o", out)
    assert result.code == 0 and len(result.out.splitlines()) >= 20
    assert {"chinese", "python_code", "letters"} <= {corpus.name for corpus in read_calibration(out).corpora}


def test_show_tells_what_a_calibration_holds(edgeq, calibrated: Path):
    lines = edgeq("show", calibrated).out.splitlines()
    assert lines[1:4] == [
        "model     tiny_model (llama, 6 layers of 192, 2048 tokens)",
        f"matrices  43, Gram matrix of {head(calibrated)}",
        "tokens    208 in 4 sequences",
    ]
    assert lines[4].startswith("text      story: 208 tokens, perplexity ")
    assert len(lines) == 10 and all(line.startswith("outlier   blk.") for line in lines[5:])
    assert " times the median, " in lines[5]
    assert any(line.startswith("blk.0.attn_q.weight: 208 rows of 192, RMS ") for line in shown(edgeq, calibrated))
    facts = json.loads(edgeq("show", calibrated, "--json").out)
    assert facts["outliers"][0]["ratio"] >= facts["outliers"][-1]["ratio"] and len(facts["outliers"]) == 25
    assert (facts["format"], facts["tokens"], facts["model"]["layers"]) == ("calibration", 208, 6)


def test_a_calibration_is_no_model_but_can_be_verified(edgeq, calibrated: Path, tmp_path: Path):
    for verb in (("import",), ("run",), ("convert", "--type", "Q8_0"), ("calibrate", "-o", tmp_path / "m.calib")):
        result = edgeq(verb[0], calibrated, *verb[1:])
        assert result.code == 2 and f"{calibrated}: is a calibration, not a model" in result.err, verb
    assert f"{calibrated}: sound: " in edgeq("verify", calibrated).out
    damaged = tmp_path / "damaged.calib"
    damaged.write_bytes(calibrated.read_bytes()[:-64])
    result = edgeq("verify", damaged)
    assert result.code == 2 and f"{damaged}: is truncated" in result.err


def shown(edgeq, path: Path) -> list[str]:
    return edgeq("show", path, "--tensors").out.splitlines()


def head(path: Path) -> str:
    return "output.weight" if "output.weight" in read_calibration(path).matrices else "token_embd.weight"


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_what_was_killed_goes_on(edgeq, tiny_model: Path, calibrated: Path, text: Path, tmp_path: Path):
    """Killed as soon as a state is there; the same command then ends with the same bits."""
    out, options = tmp_path / "m.calib", ("--text", f"story={text}", "--tokens", "208", "--ctx-size", "64")
    slow = (
        "import time; from edgeq.cli import main; from edgeq.quantize import collect; collect.SAVE_S = -1.0\n"
        "add = collect._Run.add\n"
        "def slower(self, *given):\n    time.sleep(0.3); add(self, *given)\n"
        f"collect._Run.add = slower; main({['calibrate', str(tiny_model), *options, '-o', str(out)]!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], env=environment.of_child())
    state = tmp_path / "m.calib.partial"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists() and not out.exists()
    result = edgeq("calibrate", tiny_model, *options, "-o", out)
    assert "sequences are done already: going on there" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["m.calib"]
    assert out.read_bytes() == calibrated.read_bytes()


def test_what_cannot_be_calibrated_is_refused(edgeq, tiny_model: Path, text: Path, tmp_path: Path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("Hello.")
    model = tmp_path / "m.eqf"
    package.convert(tiny_model, model, "BF16")
    cases = [
        ((model, "--text", tmp_path / "empty.txt"), "empty.txt: is empty: give some text"),
        ((model, "--text", tmp_path / "short.txt"), "short.txt: is too short: give at least 16 tokens"),
        ((model, "--text", tmp_path / "none.txt"), "none.txt: cannot be read"),
        ((model, "--text", f"={text}"), "has an empty name"),
        ((model, "--text", text, "--gram", "blk.9.*"), "no matrix is called 'blk.9.*'"),
        ((model, "--text", text, "-o", model), "is the model itself"),
        ((model, "--text", text, "-o", tmp_path / "no" / "m.calib"), "does not exist"),
        ((model, "--text", text, "-o", tmp_path), "is a folder"),
        ((tmp_path / "none.eqf", "--text", text), "none.eqf"),
        ((text, "--text", text), "story.txt"),
    ]
    for arguments, message in cases:
        output = () if "-o" in arguments else ("-o", tmp_path / "m.calib")
        result = edgeq("calibrate", *arguments, *output)
        assert (result.code, result.err.count("\n")) == (2, 1), (arguments, result)
        assert message in result.err, result.err
        assert not (tmp_path / "m.calib").exists()


def test_a_model_without_a_tokenizer_is_refused(edgeq, tiny_model: Path, text: Path, tmp_path: Path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    package.convert(tmp_path, tmp_path / "m.eqf", "BF16", allow_no_tokenizer=True)
    result = edgeq("calibrate", tmp_path / "m.eqf", "--text", text, "-o", tmp_path / "m.calib")
    assert result.code == 2 and "has no tokenizer, without which it reads no text" in result.err
