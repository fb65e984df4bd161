"""Collecting: the sums are those of what taps show, whatever the number of threads, and are gone on with."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write

from edgeq.container.reader import File, open_file
from edgeq.errors import EdgeqError, UsageError
from edgeq.models import architecture
from edgeq.quantize import collect
from edgeq.quantize.collect import Passage, calibrate
from edgeq.quantize.pipeline import convert
from edgeq.quantize.reads import inputs
from edgeq.quantize.sketch import Sketch
from edgeq.quantize.sums import products
from edgeq.runtime.session import Session

RNG = np.random.default_rng(7)
PASSAGES = [Passage(corpus, RNG.integers(0, 2048, n).tolist()) for corpus, n in (("a", 70), ("b", 40), ("a", 90))]


@pytest.fixture(scope="module")
def file(tiny_model: Path, tmp_path_factory) -> File:
    path = tmp_path_factory.mktemp("calibrate") / "tiny.eqf"
    convert(tiny_model, path, "BF16")
    return open_file(path)


@pytest.fixture(scope="module")
def calibration(file: File):
    return calibrate(file, PASSAGES, name="tiny", threads=1, gram=["blk.2.ffn_down.weight"])


def shown(file: File, name: str) -> np.ndarray:
    """f64 [tokens, columns]: what a tap of one matrix shows, passage after passage."""
    rows: list[np.ndarray] = []
    with Session(file, context=128, threads=2, taps=[name]) as session:
        for passage in PASSAGES:
            session.rewind(0)
            session.eval(passage.tokens, tapped=lambda _, x: rows.append(x.astype(np.float64)))
    return np.concatenate(rows)


@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "blk.2.ffn_down.weight", "blk.5.attn_output.weight"])
def test_sums_are_those_of_what_a_tap_shows(file: File, calibration, name: str):
    x, found = shown(file, name), calibration.of(name)
    assert found.counts.tolist() == [200]
    np.testing.assert_allclose(found.mean_square, np.square(x).mean(0), rtol=1e-6)
    assert (found.low, found.high) == (x.min(), x.max())
    assert (found.gram is not None) == (name == "blk.2.ffn_down.weight")
    if found.gram is not None:
        np.testing.assert_allclose(found.gram, x.T @ x / len(x), rtol=1e-5, atol=1e-6 * np.abs(found.gram).max())
        assert np.array_equal(found.gram, found.gram.T)
    starts = np.cumsum([0, *(len(passage.tokens) for passage in PASSAGES)])
    sample = np.concatenate([x[a + 1 : b : 8] for a, b in pairwise(starts)])
    sketch = calibration.sketch(name)
    assert np.array_equal(sketch.counts, Sketch.of(sample.astype(np.float32)).counts)
    assert (sketch.minimum, sketch.maximum) == (x.min(), x.max())
    assert np.array_equal(sketch.channel_maxima, np.abs(x).max(0))


def test_all_matrices_are_there_and_the_head_s_input_is_that_of_every_token(file: File, calibration):
    expected = {name for name, info in file.tensors.items() if len(info.shape) == 2 and name.startswith("blk.")}
    head = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
    assert calibration.matrices.keys() == expected | {head}
    rows: list[np.ndarray] = []
    with Session(file, context=128, threads=2, taps=[head]) as session:
        losses = []
        for passage in PASSAGES:
            session.rewind(0)
            logits = session.eval(passage.tokens, True, lambda _, x: rows.append(x.astype(np.float64))).astype(float)
            logits -= np.log(np.exp(logits).sum(1, keepdims=True))
            places = np.arange((len(passage.tokens) - 1) // 2, len(passage.tokens) - 1)
            losses.append(-logits[places, np.array(passage.tokens)[places + 1]])
    x, found = np.concatenate(rows), calibration.of(head)
    np.testing.assert_allclose(found.gram, x.T @ x / len(x), rtol=1e-4, atol=1e-5 * np.abs(found.gram).max())
    np.testing.assert_allclose(found.mean_square, np.square(x).mean(0), rtol=1e-5)
    (a, b), wanted = calibration.corpora, (np.concatenate([losses[0], losses[2]]), losses[1])
    assert (a.name, a.tokens, b.name, b.tokens) == ("a", 160, "b", 40)
    np.testing.assert_allclose([a.perplexity, b.perplexity], [np.exp(one.mean()) for one in wanted], rtol=1e-3)


def same(a, b) -> bool:
    """Whether two calibrations have the same bits."""
    return a.corpora == b.corpora and all(
        all(np.array_equal(u, v, equal_nan=u.dtype.kind == "f") for u, v in zip(*map(parts, pair), strict=True))
        for pair in ((a.matrices[name], b.matrices[name]) for name in a.matrices | b.matrices)
    )


def parts(one) -> list[np.ndarray]:
    gram = np.empty(0) if one.gram is None else one.gram
    return [
        one.sum_square,
        one.counts,
        np.array([one.low, one.high]),
        one.sketch.counts,
        one.sketch.channel_maxima,
        gram,
    ]


def test_threads_change_no_bit(file: File, calibration):
    assert same(calibration, calibrate(file, PASSAGES, threads=3, gram=["blk.2.ffn_down.weight"]))
    assert not same(calibration, calibrate(file, PASSAGES[:2], threads=1, gram=["blk.2.ffn_down.weight"]))


def test_the_split_into_passes_changes_no_bit(file: File, calibration, monkeypatch):
    monkeypatch.setattr(collect, "_batch", lambda groups, file: 13)
    other = calibrate(file, PASSAGES, gram=["blk.2.ffn_down.weight"])
    for name in calibration.matrices:
        (a, b) = calibration.sketch(name), other.sketch(name)
        assert np.array_equal(a.counts, b.counts) and np.array_equal(a.channel_maxima, b.channel_maxima), name


def test_a_text_s_tokens_are_counted(calibration):
    a, b = (np.bincount(np.concatenate([one.tokens for one in PASSAGES if one.corpus == name])) for name in "ab")
    assert np.array_equal(calibration.corpus_counts(0)[: len(a)], a) and calibration.corpus_counts(0).sum() == 160
    assert np.array_equal(calibration.corpus_counts(1)[: len(b)], b) and len(calibration.corpus_counts(1)) == 2048


def test_what_was_begun_is_gone_on_with(file: File, calibration, tmp_path: Path, monkeypatch):
    state, heard = tmp_path / "state", []
    monkeypatch.setattr(collect, "SAVE_S", -1.0)

    def stops(corpus: str, done: int, total: int) -> None:
        if done > 70:
            raise KeyboardInterrupt

    gram = ["blk.2.ffn_down.weight"]
    with pytest.raises(KeyboardInterrupt):
        calibrate(file, PASSAGES, gram=gram, state=state, progress=stops)
    kept = state.read_bytes()
    other = calibrate(file, PASSAGES, state=state, announce=heard.append)
    assert heard == [] and other.of("blk.2.ffn_down.weight").gram is None, "what was begun is another calibration"
    state.write_bytes(kept)
    said: list[tuple[str, int, int]] = []
    again = calibrate(
        file, PASSAGES, gram=gram, state=state, progress=lambda *now: said.append(now), announce=heard.append
    )
    assert heard == ["1 of 3 sequences are done already: going on there"]
    assert said == [("b", 110, 200), ("a", 200, 200)]
    assert same(calibration, again)
    state.write_bytes(kept[:1000])
    assert same(calibration, calibrate(file, PASSAGES, gram=gram, state=state)), "what is damaged is begun again"


@pytest.mark.parametrize("rows", [1, 33, 512])
def test_products_are_exact_in_any_order(rows: int):
    x = np.float32(RNG.standard_normal((rows, 70)) * 10.0 ** RNG.integers(-9, 9, 70))
    x[:, 3] = 0
    found, order = products(x), RNG.permutation(rows)
    assert np.array_equal(found, products(x[order])), "no sum is rounded"
    exact = x.astype(np.float64).T @ x
    largest = np.abs(x).max(0).astype(np.float64)
    assert (np.abs(found - exact) <= rows * 2.0**-20 * np.outer(largest, largest)).all()


@pytest.mark.parametrize("case", ["mixtral", "gpt-oss", "qwen2-moe"])
def test_experts_read_what_is_routed_to_them(case: str, tmp_path: Path):
    checkpoint = write(case, tmp_path)
    convert(checkpoint, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    with open_file(tmp_path / "m.eqf") as file:
        vocabulary = file.tensors["token_embd.weight"].shape[0]
        passages = [Passage("a", np.random.default_rng(1).integers(0, vocabulary, 50).tolist())]
        calibration = calibrate(file, passages, threads=2)
        gate, router = (calibration.of(f"blk.1.ffn_{part}.weight") for part in ("gate_exps", "gate_inp"))
        experts, _, columns = file.tensors["blk.1.ffn_gate_exps.weight"].shape
        assert gate.sum_square.shape == (experts, columns) == gate.mean_square.shape
        assert gate.counts.sum() % 50 == 0 and 0 < gate.counts.sum() < 50 * experts, "top_k of each token"
        assert (gate.counts <= router.counts[0]).all()
        assert not np.allclose(gate.mean_square[0], gate.mean_square[1])
        per_token = gate.counts.sum() // 50
        assert gate.sum_square.sum() < per_token * router.sum_square.sum() * 1.0001
        assert calibration.of("blk.1.ffn_down_exps.weight") is None
        few = calibration.starved(1000)
        assert f"blk.1.ffn_up_exps.weight: {experts} of {experts} experts saw fewer than 1000 tokens" in few


def test_a_model_without_a_head_is_calibrated_too(tmp_path: Path):
    checkpoint = write("bert", tmp_path)
    convert(checkpoint, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    with open_file(tmp_path / "m.eqf") as file:
        calibration = calibrate(file, [Passage("a", [1, 2, 3, 4]), Passage("b", [5, 6])])
    assert np.isnan([corpus.perplexity for corpus in calibration.corpora]).all()
    assert "token_embd.weight" not in calibration.matrices and "blk.0.attn_q.weight" in calibration.matrices


def test_what_cannot_be_collected_is_refused(file: File, monkeypatch):
    with pytest.raises(UsageError, match="there is no text to calibrate it with"):
        calibrate(file, [])
    with pytest.raises(UsageError, match=r"no matrix is called 'blk\.9\.\*'"):
        calibrate(file, PASSAGES, gram=["blk.9.*"])
    with pytest.raises(UsageError, match="token ids must lie between 0 and 2047"):
        calibrate(file, [Passage("a", [1, 2048])])
    monkeypatch.setattr(collect, "available_memory", lambda: 1000)
    with pytest.raises(EdgeqError, match=r"the sums take .* GB, .* GB free: ask for fewer Gram"):
        calibrate(file, PASSAGES)


def test_what_reads_the_same_is_summed_once(file: File):
    groups = inputs(architecture(file.metadata["config"]), file)
    assert ("blk.1.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_v.weight") in groups
    with Session(
        file, context=16, threads=1, states=True, taps=[name for names in groups for name in names]
    ) as session:
        places = {name: rows.ctypes.data for name, (rows, _) in session.plan.taps.items()}
    assert places.keys() == {name for names in groups for name in names}
    assert all(len({places[name] for name in names}) == 1 for names in groups)
    assert len({places[names[0]] for names in groups}) == len(groups)
