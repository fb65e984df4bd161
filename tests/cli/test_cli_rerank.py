import json
from pathlib import Path

import pytest
import sentence_encoder

import edgeq as package

TEXTS = ["abc", "de f", "abc"]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    package.convert(sentence_encoder.write_reranker(folder / "checkpoint"), folder / "m.eqf", "Q8_0")
    with package.load(folder / "m.eqf"):  # which compiles what is missing, and says so
        return folder / "m.eqf"


@pytest.fixture(scope="module")
def scores(path) -> list[float]:
    with package.load(path, threads=1) as model:
        return [float(score) for score in model.rerank("ab", TEXTS)]


def test_the_best_comes_first_and_of_equal_ones_the_first(edgeq, path, scores):
    code, out, err = edgeq("rerank", path, "ab", *TEXTS, "-t", 1)
    assert (code, err) == (0, "")
    order = sorted(range(3), key=lambda i: -scores[i])
    assert out == "".join(f"{scores[i]:.4f}  {TEXTS[i]}\n" for i in order)


def test_lines_of_a_file_as_json(edgeq, path, scores, tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    code, out, err = edgeq("rerank", path, "ab", "--file", tmp_path / "t.txt", "--json", "-n", 1, "--timings")
    assert code == 0 and "texts/s" in err
    best = max(range(3), key=lambda i: scores[i])
    assert json.loads(out) == [{"index": best, "score": scores[best], "text": TEXTS[best]}]


def test_texts_that_are_cut_are_told(edgeq, path):
    code, _, err = edgeq("rerank", path, "ab", "a b c d e f g h i j k l m n o p q r s t u a b", "a")
    assert (code, err) == (0, "edgeq: 1 of 2 texts were cut\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ab"], "there is no text"),
        (["ab", "--file", "missing.txt"], "missing.txt: cannot be read"),
        (["ab", "c", "--instruction", "d"], "takes no instruction"),
    ],
)
def test_mistakes(edgeq, path, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = edgeq("rerank", path, *arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
