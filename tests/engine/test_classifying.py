"""Rerankers and classifiers: texts in, scores out."""

from pathlib import Path

import numpy as np
import pytest
import sentence_encoder
from sentence_encoder import QUERY, TEXTS

import edgeq
from edgeq.errors import UnsupportedError, UsageError

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "encoders.npz")


def converted(folder: Path, case: str = "bert-rank", **config) -> Path:
    edgeq.convert(sentence_encoder.write_reranker(folder / "checkpoint", case, **config), folder / "m.eqf", "F32")
    return folder / "m.eqf"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return converted(tmp_path_factory.mktemp("reranker"))


def test_scores_are_those_of_sentence_transformers(path: Path):
    with edgeq.load(path, threads=2) as model:
        scores = model.rerank(QUERY, TEXTS)
        assert scores.shape == (50,) and scores.dtype == np.float32
        assert np.abs(scores - GOLDEN["pairs of texts"]).max() <= 1e-3
        assert np.std(scores) > 0.005
        assert model.ranking_timings.texts == 50 and model.ranking_timings.cut > 5
        assert model.rerank(QUERY, []).shape == (0,)


def test_a_reranker_of_relative_positions(tmp_path: Path):
    """DeBERTa, its vocabulary of sentencepiece's kind."""
    folder = sentence_encoder.write_reranker(tmp_path / "checkpoint", "deberta-v2-rank")
    edgeq.convert(sentence_encoder.with_unigram(folder), tmp_path / "m.eqf", "F32")
    expected = GOLDEN["pairs of texts in DeBERTa"]
    with edgeq.load(tmp_path / "m.eqf", threads=2) as model:
        scores = model.rerank(QUERY, TEXTS)
        assert np.abs(scores - expected).max() <= 1e-3 and np.std(expected) > 0.05
        assert model.ranking_timings.cut > 5
    with edgeq.load(tmp_path / "m.eqf", threads=3) as model:
        np.testing.assert_array_equal(model.rerank(QUERY, TEXTS[::-1])[::-1], scores)


def test_an_activation_that_the_checkpoint_names(path: Path, tmp_path: Path):
    named = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}
    with edgeq.load(path) as model, edgeq.load(converted(tmp_path / "a", sentence_transformers=named)) as other:
        logits = other.rerank(QUERY, TEXTS[:5])
        np.testing.assert_allclose(model.rerank(QUERY, TEXTS[:5]), 1 / (1 + np.exp(-logits)), atol=1e-6)
    older = converted(tmp_path / "b", sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    with edgeq.load(older) as other:
        np.testing.assert_array_equal(other.rerank(QUERY, TEXTS[:5]), logits)
    named["activation_fn"] = "mine.Strange"
    with (
        edgeq.load(converted(tmp_path / "c", sentence_transformers=named)) as other,
        pytest.raises(UnsupportedError, match="the activation 'Strange' of scores is not supported"),
    ):
        other.rerank(QUERY, ["a"])


def test_labels_and_their_probabilities(tmp_path: Path):
    texts = ["abc", ("ab", "c"), "d. e"]
    with edgeq.load(converted(tmp_path / "a", "bert-classes")) as model:
        found = model.classify(texts)
        logits = model.classifying(texts)
        with pytest.raises(UsageError, match="has 3 labels, a reranker has one"):
            model.rerank("a", ["b"])
    assert [list(one) for one in found] == [["good", "bad", "neither"]] * 3
    powers = np.exp(logits)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([list(one.values()) for one in found], expected, atol=1e-6)
    for kind, values in (("multi_label_classification", 1 / (1 + np.exp(-logits))), ("regression", logits)):
        with edgeq.load(converted(tmp_path / kind, "bert-classes", problem_type=kind)) as model:
            np.testing.assert_allclose([list(one.values()) for one in model.classify(texts)], values, atol=1e-6)


def test_a_classifier_writes_no_text_and_embeds(path: Path):
    with edgeq.load(path) as model:
        assert model.embed(["abc"]).shape == (1, 64)
        with pytest.raises(UsageError, match="writes none"):
            model.generate("abc")


def test_what_is_no_reranker(path: Path, tiny_model: Path, tmp_path: Path):
    edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    with edgeq.load(tmp_path / "m.eqf") as model:
        with pytest.raises(UsageError, match=r"m\.eqf: is no classifier or reranker"):
            model.rerank("a", ["b"])
        with pytest.raises(UsageError, match=r"m\.eqf: is no classifier or reranker"):
            model.classify(["b"])
    with edgeq.load(path) as model:
        for query, texts in (("a", "b"), (1, ["b"]), ("a", [1])):
            with pytest.raises(UsageError, match="rerank takes a query and a list of texts"):
                model.rerank(query, texts)
        with pytest.raises(UsageError, match="takes no instruction"):
            model.rerank("a", ["b"], instruction="c")
        for texts in ("a", [("a",)], [5]):
            with pytest.raises(UsageError, match=r"list of texts|texts, or pairs of texts"):
                model.classify(texts)


def test_the_other_heads_are_told_to_be_left_out(tmp_path: Path):
    folder = sentence_encoder.write_reranker(tmp_path / "c", architectures=["BertForTokenClassification"])
    report = edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    assert report.notes == ["the head of BertForTokenClassification is left out: the model embeds texts"]
