"""The population stability index: its value, what chance is, and what is subtracted."""

from itertools import pairwise

import numpy as np
import pytest

from edgeq.drift.bins import Bins, Histograms, counts_between, spread_of

RNG = np.random.default_rng(3)


def test_the_index_is_that_of_the_formula():
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.25, 0.25])
    expected = sum((a - b) * np.log(a / b) for a, b in zip(p, q, strict=True))
    bins = Bins(q[None], 0.0)
    found = bins.stability(np.array([[20, 30, 50]]), 10, 10)
    assert found.value == pytest.approx(expected) and found.sure
    two = Bins(np.stack([q, p]), 0.0)
    assert two.stability(np.array([[20, 30, 50]] * 2), 10, 10).value == pytest.approx(expected / 2), "they are averaged"
    assert bins.stability(np.array([[50, 25, 25]]), 10, 10) == (0, False)


def test_empty_bins_and_nothing_at_all():
    bins = Bins(np.array([[0.5, 0.5, 0.0]]), 0.0)
    assert np.isfinite(bins.stability(np.array([[0, 0, 9]]), 5, 5).value)
    assert bins.stability(np.array([[0, 0, 0]]), 5, 5) == (0, False)
    assert bins.stability(np.array([[1, 1, 1]]), 0, 5) == (0, False)


@pytest.mark.parametrize("texts", [8, 40])
def test_what_chance_gives_is_subtracted(texts: int):
    """Of texts whose values are alike within each, as those of a model are."""

    def drawn(number: int) -> list[np.ndarray]:
        topics = RNG.standard_normal((number, 1, 4)) * 0.7
        return [counts_between(edges, topic + RNG.standard_normal((16, 4))) for topic in topics]

    edges = np.tile(np.linspace(-1.2, 1.2, 7), (4, 1))
    calibrated = drawn(64)
    total = np.sum(calibrated, 0)
    shares = total / total.sum(1, keepdims=True)
    bins = Histograms(shares, spread_of(calibrated, shares), edges)
    found = [bins.stability(np.sum(drawn(texts), 0), texts, 64) for _ in range(200)]
    raw = [Bins(shares, 0.0).stability(np.sum(drawn(texts), 0), texts, 64) for _ in range(200)]
    chance = bins.spread * (1 / texts + 1 / 64)
    assert np.mean([one.value for one in raw]) == pytest.approx(chance, rel=0.25)
    assert np.mean([one.value for one in found]) < 0.5 * chance
    assert sum(one.sure for one in found) <= 4, "few are taken for more than chance"


@pytest.mark.parametrize("distributions", [1, 3])
def test_values_are_counted_between_edges(distributions: int):
    x = RNG.integers(-3, 4, (50, distributions)).astype(np.float32)
    edges = np.sort(RNG.integers(-3, 4, (distributions, 5)).astype(np.float64), 1)
    found = counts_between(edges, x)
    for own, counts, column in zip(edges, found, x.T, strict=True):
        limits = [-np.inf, *own, np.inf]
        expected = [int(((column >= a) & (column < b)).sum()) for a, b in pairwise(limits)]
        assert counts.tolist() == expected
    assert counts_between(edges, x[:0]).sum() == 0
