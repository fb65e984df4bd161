import numpy as np
import pytest

from edgeq.evaluate.statistics import larger_by_chance, mcnemar, mean, percentiles, root_mean_square, share

VALUES = np.random.default_rng(3).gamma(2.0, 1.0, 400)


def test_a_mean_has_the_error_of_independent_values():
    found = mean(VALUES)
    assert found.value == pytest.approx(VALUES.sum() / 400)
    assert found.error == pytest.approx(np.sqrt((np.mean(VALUES**2) - np.mean(VALUES) ** 2) / 399))


def test_a_share():
    found = share([True] * 3 + [False])
    assert (found.value, found.error) == (0.75, pytest.approx(0.25))


def test_a_root_mean_square():
    found = root_mean_square(VALUES)
    assert found.value == pytest.approx(np.sqrt(np.mean(VALUES**2)))
    halves = [np.sqrt(np.mean(np.random.default_rng(i).choice(VALUES, 400) ** 2)) for i in range(400)]
    assert found.error == pytest.approx(np.std(halves), rel=0.2), "what resampling shows"


def test_percentiles_lie_between_neighbours():
    assert percentiles([3.0, 1.0, 2.0, 5.0], (0, 50, 90, 100)) == pytest.approx(
        {"0": 1.0, "50": 2.5, "90": 4.4, "100": 5.0}
    )
    assert np.isnan(percentiles([], (50,))["50"])


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (8, 2, 2 * 56 / 1024), (2, 8, 2 * 56 / 1024)]
)
def test_mcnemar(lost, gained, p):
    assert mcnemar(lost, gained) == pytest.approx(p)


def test_a_permutation_test():
    draw = np.random.default_rng(5)
    assert larger_by_chance(draw.normal(3, 1, 10), draw.normal(0, 1, 40)) <= 2e-4
    assert larger_by_chance(draw.normal(-3, 1, 10), draw.normal(0, 1, 40)) > 0.99, "one-sided"
    assert larger_by_chance(np.array([9.0]), np.zeros(3)) >= 0.25, "four ways to choose one of four"
    assert larger_by_chance(np.empty(0), np.ones(3)) == 1.0


def test_chance_is_found_as_often_as_it_should():
    draw = np.random.default_rng(7)
    found = [larger_by_chance(draw.exponential(1, 5), draw.exponential(1, 12), draws=199) for _ in range(200)]
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.06)
