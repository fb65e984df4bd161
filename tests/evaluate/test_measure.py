"""Every statistic against its formula, on predictions that are known."""

import numpy as np
import pytest
from random_models import log_probabilities, table_model

from edgeq.errors import UsageError
from edgeq.evaluate import divergence, perplexity
from edgeq.evaluate.measure import chunks_for, measure
from edgeq.evaluate.texts import Passage

TEXT = "".join(chr(32 + i * i % 91) for i in range(64 * 5))


@pytest.fixture(scope="module")
def by_hand():
    """Logarithms of probabilities of the reference and the model at the positions that count, and what follows."""
    model, reference = table_model(noise=0.4), table_model()
    parts = []
    for start in range(0, len(TEXT), 64):
        ids = [*TEXT[start : start + 64].encode()]
        rows = slice(32, 63)
        pair = (log_probabilities(m, ids)[rows] for m in (reference, model))
        parts.append((*pair, np.array(ids[33:])))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def found():
    return divergence(table_model(noise=0.4), table_model(), TEXT, ctx_size=64)


def test_perplexity(by_hand, found):
    base, log, following = by_hand
    rows = np.arange(len(following))
    nll, nll_base = -log[rows, following], -base[rows, following]
    assert found.positions == len(nll) == 5 * 31
    assert found.perplexity.value == pytest.approx(np.exp(nll.mean()))
    assert found.perplexity.error == pytest.approx(np.exp(nll.mean()) * nll.std(ddof=1) / np.sqrt(len(nll)))
    assert found.base_perplexity.value == pytest.approx(np.exp(nll_base.mean()))
    assert found.ratio.value == pytest.approx(np.exp((nll - nll_base).mean()))
    assert found.log_ratio.error == pytest.approx((nll - nll_base).std(ddof=1) / np.sqrt(len(nll)))
    assert found.correlation == pytest.approx(np.corrcoef(nll, nll_base)[0, 1])
    assert perplexity(table_model(noise=0.4), TEXT, ctx_size=64) == found.perplexity


def test_divergence(by_hand, found):
    base, log, _ = by_hand
    kl = (np.exp(base) * (base - log)).sum(axis=1)
    assert found.kl.value == pytest.approx(kl.mean())
    assert found.kl.error == pytest.approx(kl.std(ddof=1) / np.sqrt(len(kl)))
    assert (found.kl_max, found.kl_min) == (pytest.approx(kl.max()), pytest.approx(kl.min()))
    for percent, value in found.kl_percentiles.items():
        assert value == pytest.approx(np.percentile(kl, float(percent)))
    assert found.kl_percentiles.keys() >= {"50", "90", "95", "99", "99.9"}
    assert found.same_top.value == np.mean(base.argmax(axis=1) == log.argmax(axis=1))
    assert 0.3 < found.same_top.value < 1, "or nothing is shown"


def test_changes_of_probability(by_hand, found):
    base, log, following = by_hand
    rows = np.arange(len(following))
    change = np.exp(log[rows, following]) - np.exp(base[rows, following])
    assert found.delta_p.value == pytest.approx(change.mean())
    assert found.delta_p_rms.value == pytest.approx(np.sqrt(np.mean(change**2)))
    assert found.delta_p_percentiles["0"] == pytest.approx(change.min())
    assert found.delta_p_percentiles["75"] == pytest.approx(np.percentile(change, 75))


def test_a_model_does_not_differ_from_itself():
    found = divergence(table_model(), table_model(), TEXT, ctx_size=64)
    assert (found.kl.value, found.same_top.value, found.ratio.value) == (0.0, 1.0, 1.0)
    assert found.perplexity == found.base_perplexity


def test_several_models_at_once_are_as_one_by_one():
    models = [table_model(noise=0.4), table_model(noise=0.1)]
    chunks = chunks_for(models, [Passage(TEXT, "t")], 64, 2)
    both = measure(models, chunks, table_model())
    for model, positions in zip(models, both, strict=True):
        (alone,) = measure([model], chunks, table_model())
        np.testing.assert_array_equal(alone.select().kl, positions.select().kl)
    assert both[0].select([1]).kl.tolist() == both[0].select().kl[31:].tolist()


def test_models_must_agree():
    other = table_model(path="other.eqf")
    other.file.tensors["token_embd.weight"].shape = (271, 8)
    with pytest.raises(UsageError, match=r"other\.eqf: has a vocabulary of 271, table\.eqf one of 270"):
        chunks_for([table_model(), other], [Passage(TEXT, "t")], 64)
    with pytest.raises(UsageError, match=r"table\.eqf: chunks of 512 tokens do not fit in its context of 128"):
        chunks_for([table_model()], [Passage(TEXT * 9, "t")])
    with pytest.raises(UsageError, match="chunks of 4 tokens cannot work"):
        chunks_for([table_model()], [Passage(TEXT, "t")], 4)
