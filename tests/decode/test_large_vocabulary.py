"""Draws from many tokens, of which only a few are looked at closely: the same as if all were."""

import math

import numpy as np
import pytest

from edgeq.decode import candidates as module
from edgeq.decode.candidates import MANY, Candidates
from edgeq.decode.sampler import Sampler

VOCAB = 3 * MANY + 77


def straightforward(logits, number, top_k=40, top_p=0.95, min_p=0.05, temperature=0.8):
    """The definition: everything in f64, everything sorted."""
    largest = logits.max()
    ids, values = np.arange(len(logits)), logits.astype(np.float64)
    if 0 < top_k < len(ids):
        ids = np.sort((-values).argsort(kind="stable")[:top_k])
        values = values[ids]
    total = np.exp(values - largest).sum()
    if min_p > 0:
        kept = values >= largest + math.log(min_p)
        ids, values = ids[kept], values[kept]
    if top_p < 1:
        order = (-values).argsort(kind="stable")
        ids, values = ids[order], values[order]
        count = 1 + np.searchsorted(np.exp(values - largest).cumsum() / total, top_p, side="left")
        ids, values = ids[:count], values[:count]
    sums = np.exp((values - largest) / temperature).cumsum()
    return int(ids[min(np.searchsorted(sums, number * sums[-1], side="right"), len(ids) - 1)])


def distributions():
    rng = np.random.default_rng(5)
    normal = rng.normal(size=VOCAB).astype(np.float32)
    yield "flat", normal * np.float32(0.01)
    yield "wide", normal
    yield "usual", normal * np.float32(3)
    yield "sharp", normal * np.float32(20)
    yield "ties", np.round(normal)
    yield "equal", np.zeros(VOCAB, np.float32)
    yield "masked", np.where(rng.random(VOCAB) < 0.5, normal * np.float32(3), np.float32(-np.inf))
    yield "signed zeros", np.where(rng.random(VOCAB) < 0.5, np.float32(0.0), np.float32(-0.0))


CASES = {
    "usual": {"top_k": 0},
    "nucleus": {"top_k": 0, "min_p": 0.0},
    "small nucleus": {"top_k": 0, "min_p": 0.0, "top_p": 0.1},
    "plain": {"top_k": 0, "min_p": 0.0, "top_p": 1.0, "temperature": 1.0},
    "hot": {"top_k": 0, "min_p": 0.0, "top_p": 1.0, "temperature": 1.7},
    "large k": {"top_k": MANY + 1000, "min_p": 0.001},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [name for name, _ in distributions()])
def test_draws_are_those_of_the_definition(kind, case):
    logits = dict(distributions())[kind]
    random = np.random.Generator(np.random.PCG64(11))
    sampler = Sampler(seed=11, **CASES[case])
    for _ in range(12):
        assert sampler.sample(logits) == straightforward(logits, random.random(), **CASES[case])


def test_a_doubt_is_settled_exactly():
    """Numbers at the very borders between tokens."""
    logits = dict(distributions())["usual"]
    candidates = Candidates(logits, float(logits.max())).tempered(0.8)
    sums = np.exp((logits.astype(np.float64) - float(logits.max())) / 0.8).cumsum()
    doubts = 0
    for place in range(5, VOCAB, 997):
        for number in (sums[place] / sums[-1], np.nextafter(sums[place] / sums[-1], 0)):
            expected = int(np.searchsorted(sums, number * sums[-1], side="right"))
            assert candidates.drawn(number) == expected
            doubts += candidates._surely_drawn(number) is None
    assert doubts == 2 * len(range(5, VOCAB, 997)), "an estimate is not that exact"
    assert candidates.drawn(np.nextafter(1.0, 0)) == straightforward(logits, np.nextafter(1.0, 0), 0, 1.0, 0.0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("kind", [name for name, _ in distributions()])
def test_estimates_are_as_near_as_they_say(kind, temperature):
    logits = dict(distributions())[kind]
    candidates = Candidates(logits, float(logits.max())).tempered(temperature)
    estimates, error = candidates._estimate
    exact = candidates.weights
    assert np.abs(estimates.cumsum(dtype=np.float64) - exact.cumsum()).max() <= error < 1e-4 * exact.sum()
    low, high = candidates.total_bounds
    assert low <= exact.sum() <= high


def test_few_draws_from_many_need_all_weights(monkeypatch):
    """What makes it fast, which the results would not show."""
    logits = dict(distributions())["usual"]
    computed = []

    class Watched(Candidates):
        @property
        def weights(self):
            computed.append(len(self))
            return Candidates.weights.func(self)

    monkeypatch.setattr("edgeq.decode.sampler.Candidates", Watched)
    monkeypatch.setattr(module, "Candidates", Watched)
    for options in ({"top_k": 0}, {"top_k": 0, "min_p": 0.0, "top_p": 1.0}):
        sampler = Sampler(seed=1, **options)
        computed.clear()
        for _ in range(40):
            sampler.sample(logits)
        assert sum(count == VOCAB for count in computed) < 8


def test_a_logit_between_two_numbers_of_f32():
    logits = np.array([1.0, np.nextafter(np.float32(1), np.float32(2)), 0.5], np.float32)
    candidates = Candidates(logits, float(logits.max()))
    assert candidates.reaching(1.0).tolist() == [0, 1]
    assert candidates.reaching(1.0 + 1e-12).tolist() == [1]
    assert candidates.reaching(-1e308).tolist() == [0, 1, 2]
