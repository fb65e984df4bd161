import json
from pathlib import Path

import numpy as np
import pytest
import sentence_encoder

import edgeq as package


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    package.convert(sentence_encoder.write(folder / "checkpoint"), folder / "m.eqf", "Q8_0")
    with package.load(folder / "m.eqf"):  # which compiles what is missing, and says so
        return folder / "m.eqf"


def vectors(path: Path, *texts: str, **options) -> np.ndarray:
    with package.load(path, threads=1) as model:
        return model.embed(texts, **options)


def test_texts_to_json(edgeq, path):
    code, out, err = edgeq("embed", path, "abc", "de f", "-t", 1)
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(np.array(json.loads(out), np.float32), vectors(path, "abc", "de f"))
    assert out.count("\n") == 2


def test_lines_of_a_file_to_numpy(edgeq, path, tmp_path):
    (tmp_path / "t.txt").write_text("abc\n\nde f\n", encoding="utf-8")
    output = tmp_path / "v.npy"
    assert (
        edgeq("embed", path, "--file", tmp_path / "t.txt", "-o", output, "--no-normalize", "--pooling", "cls")[0] == 0
    )
    np.testing.assert_array_equal(np.load(output), vectors(path, "abc", "de f", pooling="cls", normalize=False))
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_stdin_to_a_json_file(edgeq, path, tmp_path):
    code, out, err = edgeq("embed", path, "--file", "-", "-o", tmp_path / "v.json", "--timings", stdin="abc\nde f")
    assert (code, out) == (0, "")
    assert "10 tokens" in err and "tokens/s" in err and "texts/s" in err
    found = np.array(json.loads((tmp_path / "v.json").read_text()), np.float32)
    np.testing.assert_array_equal(found, vectors(path, "abc", "de f"))


def test_texts_that_are_cut_are_told(edgeq, path):
    code, _, err = edgeq("embed", path, "a b c d e f g h i j k l m", "a")
    assert (code, err) == (0, "edgeq: 1 of 2 texts were cut to the model's 12 tokens\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no text"),
        (["a", "-o", "v.csv"], "v.csv: name the output .npy (NumPy) or .json"),
        (["a", "-o", "missing/v.npy"], "missing/v.npy: the folder "),
        (["--file", "missing.txt"], "missing.txt: cannot be read"),
    ],
)
def test_mistakes(edgeq, path, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = edgeq("embed", path, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("edgeq: " + message) and err.count("\n") == 1


def test_run_and_chat_refuse_an_encoder(edgeq, path):
    code, _, err = edgeq("run", path, "abc")
    assert code == 2
    assert "is loaded to embed texts, and writes none: use `edgeq embed`" in err


def test_bench_and_doctor_know_an_encoder(edgeq, path):
    code, out, _ = edgeq("bench", path, "-p", 8, "-n", 0, "-r", 1, "-t", 1, "--json")
    assert code == 0
    assert [row["test"] for row in json.loads(out)] == ["pp8"]
    code, _, err = edgeq("bench", path, "-n", 4, "-p", 8, "-t", 1)
    assert code == 2 and "is an encoder, which takes a text as a whole: give -p alone" in err
    code, out, _ = edgeq("doctor", path, "-t", 1, "--json")
    facts = json.loads(out)
    assert facts["model"]["runs"] and facts["model"]["measured_rate"] > 0
