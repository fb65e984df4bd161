"""Texts to vectors: pooling, lengths, and what the files of sentence-transformers say."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentence_encoder

import edgeq
from edgeq.container.reader import open_file
from edgeq.engine.embedder import pool
from edgeq.errors import CheckpointError, TokenizerError, UnsupportedError, UsageError
from edgeq.runtime.session import Session

TEXTS = ["abc. de", "Ed", "a b c d e f g h i j k l m n", ""]
CLS, SEP = 2, 3
GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "encoders.npz")


def converted(folder: Path, **files) -> Path:
    edgeq.convert(sentence_encoder.write(folder / "checkpoint", **files), folder / "m.eqf", "F32")
    return folder / "m.eqf"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return converted(tmp_path_factory.mktemp("encoder"))


def ids(*words: str) -> list[int]:
    return [CLS, *(sentence_encoder.VOCABULARY.index(word) for word in words), SEP]


def test_tokens_and_what_is_cut_off(path: Path):
    with edgeq.load(path, threads=1) as model:
        assert model.embedder.tokens("Ab. [x") == (ids("a", "##b", ".", "[UNK]", "[UNK]"), False)
        assert model.embedder.tokens("") == ([CLS, SEP], False)
        assert model.embedder.tokens("é") == (ids("e"), False)
        assert model.embedder.max_length == 12
        assert model.embedder.tokens(TEXTS[2]) == (ids(*"abcdefghij"), True)
        assert model.tokenizer.decode(ids("a", "##b", "c")) == "ab c"


def test_vectors_are_pooled_states(path: Path):
    with open_file(path) as file, Session(file, threads=1) as session:
        states = session.eval(ids("e", "##d"), all_logits=True)
    with edgeq.load(path, threads=2) as model:
        vectors = model.embed(TEXTS)
        timings = model.embedder.timings
        assert vectors.shape == (4, 64) and vectors.dtype == np.float32
        assert (timings.texts, timings.cut, timings.tokens) == (4, 1, 8 + 4 + 12 + 2)
        mean = states.mean(axis=0)
        np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(model.embed(["ed"], normalize=False)[0], mean, atol=1e-6)
        for pooling, expected in (("cls", states[0]), ("last", states[-1]), ("max", states.max(axis=0))):
            np.testing.assert_array_equal(model.embed(["ed"], pooling=pooling, normalize=False)[0], expected)
        assert model.embed([]).shape == (0, 64)


def test_vectors_of_relative_positions(tmp_path: Path):
    """DeBERTa's are those of sentence-transformers, whatever else there is to embed."""
    folder = sentence_encoder.with_unigram(sentence_encoder.write(tmp_path / "checkpoint", case="deberta-v2"))
    edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    with edgeq.load(tmp_path / "m.eqf", threads=2) as model:
        vectors = model.embed(sentence_encoder.TEXTS)
        assert np.abs(vectors - GOLDEN["texts in DeBERTa"]).max() <= 1e-3
        np.testing.assert_array_equal(model.embed(sentence_encoder.TEXTS[7:9]), vectors[7:9])


def test_pooling():
    states = np.array([[1, 5], [3, -1], [2, 2]], np.float32)
    assert pool(states, "mean").tolist() == [2, 2]
    assert pool(states, "max").tolist() == [3, 5]
    assert (pool(states, "cls").tolist(), pool(states, "last").tolist()) == ([1, 5], [2, 2])


def test_a_causal_model_is_embedded_by_its_last_token(tiny_model: Path, tmp_path: Path):
    edgeq.convert(tiny_model, tmp_path / "m.eqf", "F32")
    with edgeq.load(tmp_path / "m.eqf", threads=1) as both, edgeq.load(tmp_path / "m.eqf", embeddings=True) as alone:
        before = list(both.generate("Once upon", max_tokens=4, temperature=0))
        vectors = both.embed(["Once upon a time", "The dog"])
        np.testing.assert_array_equal(alone.embed(["Once upon a time", "The dog"]), vectors)
        assert list(both.generate("Once upon", max_tokens=4, temperature=0)) == before
        tokens = both.tokenizer.encode("The dog")
        states = alone.session
        states.rewind(0)
        np.testing.assert_array_equal(states.eval(tokens)[0], vectors[1])
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() > 0.01, "not normalized"
        np.testing.assert_allclose(
            both.embed(["The dog"], pooling="mean")[0],
            alone.embed(["The dog"], pooling="mean")[0],
        )
        with pytest.raises(UsageError, match="loaded to embed texts, and writes none"):
            alone.generate("Once")


def test_an_encoder_writes_no_text(path: Path):
    with edgeq.load(path, threads=1) as model:
        with pytest.raises(UsageError, match=r"m\.eqf: is loaded to embed texts, and writes none"):
            model.generate("abc")
        with pytest.raises(UsageError, match="writes none"):
            model.logits([1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": "one text"}, "texts must be a list"),
        ({"texts": [1]}, "texts must be a list"),
        ({"texts": ["a"], "pooling": "median"}, "pooling 'median' is not known: give one of mean, cls, last, max"),
    ],
)
def test_bad_arguments(path: Path, arguments, message):
    with edgeq.load(path, threads=1) as model, pytest.raises(UsageError, match=message):
        model.embed(**arguments)


@pytest.mark.parametrize(
    ("files", "pooling", "normalized", "most"),
    [
        ({"pooling": None, "modules": None, "most": None}, "mean", False, 70),
        ({"pooling": {"pooling_mode_cls_token": True}}, "cls", True, 12),
        ({"pooling": {"pooling_mode": "lasttoken"}, "modules": sentence_encoder.MODULES[:2]}, "last", False, 12),
        ({"pooling": {"pooling_mode_max_tokens": True, "include_prompt": True}, "most": 500}, "max", True, 70),
    ],
)
def test_what_the_files_say(tmp_path: Path, files, pooling, normalized, most):
    with edgeq.load(converted(tmp_path, **files), threads=1) as model:
        assert (model.embedder.settings.pooling, model.embedder.settings.normalize) == (pooling, normalized)
        assert model.embedder.max_length == most


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"pooling": {"pooling_mode_weightedmean_tokens": True}}, UnsupportedError, "weightedmean_tokens is not supp"),
        (
            {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}},
            UnsupportedError,
            "pooling_mode_cls_token with pooling_mode_mean_tokens is not supported",
        ),
        (
            {"modules": [{"type": "sentence_transformers.models.Dense"}]},
            UnsupportedError,
            "module 'Dense', whose",
        ),
        ({"modules": [{"type": "a.LSTM"}]}, UnsupportedError, "a module 'LSTM': not supported"),
        (
            {"modules": [{"type": "a.Normalize"}, {"type": "a.Pooling"}]},
            UnsupportedError,
            "a module 'Normalize before Pooling'",
        ),
        ({"modules": [3]}, TokenizerError, "modules.json is not a list of modules"),
    ],
)
def test_what_is_refused(tmp_path: Path, files, error, message):
    path = converted(tmp_path, **files)
    with edgeq.load(path, threads=1) as model, pytest.raises(error, match=message) as caught:
        model.embed(["a"])
    assert str(caught.value).startswith(str(path))


def test_vectors_are_those_of_sentence_transformers(path: Path):
    with edgeq.load(path, threads=2) as model:
        assert np.abs(model.embed(sentence_encoder.TEXTS) - GOLDEN["texts"]).max() <= 1e-3


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    pooled = {**sentence_encoder.MEAN, "include_prompt": False}
    checkpoint = sentence_encoder.with_dense(sentence_encoder.write(folder / "c", pooled, most=None))
    edgeq.convert(checkpoint, folder / "m.eqf", "F32")
    return folder / "m.eqf"


def test_prompts_and_matrices_behind_the_pooling(dense: Path):
    with edgeq.load(dense, threads=2) as model:
        texts = sentence_encoder.TEXTS
        found = model.embed(texts)
        assert found.shape == (50, 24) and model.embedder.width == 24
        assert np.abs(found - GOLDEN["texts with a prompt"]).max() <= 1e-3
        assert np.abs(model.embed(texts, prompt_name="document") - GOLDEN["texts as documents"]).max() <= 1e-3
        np.testing.assert_array_equal(model.embed(texts, prompt="ab cd: "), found)
        with pytest.raises(UsageError, match="no prompt called 'other': give one of query, document"):
            model.embed(["a"], prompt_name="other")


def test_a_length_that_the_tokenizer_s_files_have(tmp_path: Path):
    folder = sentence_encoder.write(tmp_path / "c", most=None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for most, expected in ((9, 9), (int(1e30), 70), (None, 70)):
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": most}))
        edgeq.convert(folder, tmp_path / "m.eqf", "F32")
        with edgeq.load(tmp_path / "m.eqf", threads=1) as model:
            assert model.embedder.max_length == expected


def test_modules_that_do_not_fit(tmp_path: Path):
    folder = sentence_encoder.with_dense(sentence_encoder.write(tmp_path / "c"))
    path = folder / "3_Dense" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "in_features": 41}))
    with pytest.raises(CheckpointError, match="the module '3_Dense' reads 41 values, there are 40"):
        edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    path.write_text(json.dumps({**settings, "use_residual": True}))
    with pytest.raises(UnsupportedError, match="use_residual True is not supported"):
        edgeq.convert(folder, tmp_path / "m.eqf", "F32")


def test_a_vocabulary_without_its_special_tokens_is_refused(tmp_path: Path):
    vocabulary = [token.replace("[CLS]", "[XXX]") for token in sentence_encoder.VOCABULARY]
    with pytest.raises(TokenizerError, match=r"has no '\[CLS\]', its cls_token"):
        converted(tmp_path, vocabulary=vocabulary)


def test_a_vocabulary_that_is_no_text_is_refused(tmp_path: Path):
    folder = sentence_encoder.write(tmp_path / "c")
    (folder / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match=r"vocab\.txt is not UTF-8"):
        edgeq.convert(folder, tmp_path / "m.eqf", "F32")
