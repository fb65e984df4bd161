import json
from pathlib import Path

import pytest

import edgeq as package

TEXT = "Once upon a time there was a little girl who had a red ball. She liked to play with it in the park. " * 12


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory) -> Path:
    """Files of the bundled model, a text and a task."""
    folder = tmp_path_factory.mktemp("eval")
    for name in ("F32", "Q4_0"):
        package.convert(tiny_model, folder / f"{name}.eqf", name)
        with package.load(folder / f"{name}.eqf", threads=1):  # which compiles what is missing, and says so
            pass
    (folder / "t.txt").write_text(TEXT)
    items = [{"prompt": "Once upon a", "choices": [" time", " stone"], "answer": 0}] * 3
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, items)))
    return folder


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_all_of_it(edgeq):
    options = ["--reference", "F32.eqf", "--text", "t.txt", "-c", 64, "--chunks", 2, "--task", "task.jsonl", "-t", 1]
    outputs = ["--html", "r.html", "--reference-logits", "base.logits"]
    code, out, err = edgeq("eval", "Q4_0.eqf", *options, *outputs, "--answers", 1, "--answer-tokens", 4)
    assert (code, err) == (0, "")
    found = json.loads(edgeq("eval", "Q4_0.eqf", *options, *outputs, "--answers", 0, "--json").out)
    loss = found["candidates"][0]["loss"]
    assert loss["positions"] == 62 and 0 < loss["kl"]["value"] < 0.1
    assert f"{loss['kl']['value']:.6f} ± {loss['kl']['error']:.6f}" in out and "reference  F32.eqf" in out
    assert found["candidates"][0]["tasks"][0]["accuracy"]["value"] == 1.0
    assert Path("r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    code, out, _ = edgeq("eval", "Q4_0.eqf", *options[2:-4], "--reference-logits", "base.logits", "--json", "-t", 1)
    assert code == 0
    again = json.loads(out)["candidates"][0]["loss"]
    assert again["kl"]["value"] == pytest.approx(loss["kl"]["value"], rel=0.01)


def test_a_checkpoint_is_compared_with_as_it_is(edgeq, tiny_model, empty_cache):
    options = ["--text", "t.txt", "-c", 64, "--chunks", 1, "--answers", 0, "--json", "-t", 1]
    code, out, _ = edgeq("eval", "F32.eqf", "Q4_0.eqf", "--reference", tiny_model, *options)
    assert code == 0
    exact, rounded = json.loads(out)["candidates"]
    assert exact["loss"]["kl"]["value"] == 0.0 < rounded["loss"]["kl"]["value"]
    assert len(rounded["layers"]) > 1 and max(exact["layers"]) == 0.0
    assert 1e-5 < rounded["layers"][0] < rounded["layers"][-1] < 0.1, "it adds up"


def test_prompts_and_several_models(edgeq):
    Path("p.txt").write_text("Once upon a time\n")
    code, out, _ = edgeq("eval", "F32.eqf", "Q4_0.eqf", "--prompts", "p.txt", "--answer-tokens", 4, "-t", 1)
    assert code == 0 and "F32.eqf" in out and "Q4_0.eqf" in out and "token p50, ms" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to evaluate"),
        (["--text", "none.txt"], "none.txt: cannot be read"),
        (["--task", "t.txt"], "t.txt: has 1 lines, HellaSwag has 6"),
        (["--text", "t.txt", "--reference-top-k", 5], "--reference-top-k says how --reference-logits FILE is kept"),
        (["--reference-logits", "l"], "--reference-logits keeps predictions of a text: give --text"),
        (["--text", "t.txt", "--html", "none/r.html"], "none/r.html: the folder "),
        (["--text", "t.txt", "--reference", "none.eqf"], "none.eqf: "),
        (["--text", "t.txt", "--reference-logits", "t.txt", "-c", 64], "t.txt: is no file of reference predictions"),
    ],
)
def test_mistakes(edgeq, arguments, message):
    code, out, err = edgeq("eval", "Q4_0.eqf", *arguments, "-t", 1)
    assert (code, out) == (2, "")
    assert err.startswith(f"edgeq: {message}") and err.count("\n") == 1
    assert Path("t.txt").read_text() == TEXT, "nothing is lost"


def test_help_states_the_layouts(edgeq):
    code, out, _ = edgeq("eval", "--help")
    assert code == 0 and '{"prompt": "...", "choices": [" a", " b"], "answer": 0}' in out
