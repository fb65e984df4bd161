import numpy as np
import pytest

from edgeq.decode.candidates import Candidates


@pytest.fixture
def candidates():
    logits = np.log(np.array([0.2, 0.4, 0.1, 0.3])).astype(np.float32)
    return Candidates(logits, float(logits.max()))


def test_probabilities_are_counted_among_what_there_was_before_some_were_kept(candidates):
    kept = candidates.keep(np.array([True, True, False, True])).keep(np.array([2, 1]))
    assert kept.ids.tolist() == [3, 1] and len(kept) == 2
    assert kept.weights / kept.total == pytest.approx([0.3, 0.4])


def test_the_likeliest_are_a_new_whole(candidates):
    for before in (candidates, candidates.keep(slice(1, 4))):
        top = before.top(2)
        assert top.ids.tolist() == [1, 3]
        assert top.weights / top.total == pytest.approx([4 / 7, 3 / 7])
        assert top.keep([1]).total == top.total


def test_a_temperature_divides_differences(candidates):
    cold = candidates.tempered(0.5)
    assert cold.ids.tolist() == [0, 1, 2, 3]
    assert cold.weights == pytest.approx([0.25, 1, 1 / 16, 9 / 16])
