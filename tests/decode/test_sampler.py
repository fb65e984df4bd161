import math
from collections import Counter
from typing import get_type_hints

import numpy as np
import pytest

from edgeq.decode.candidates import top_ids
from edgeq.decode.sampler import Sampler
from edgeq.decode.sampler_steps import Sampling, options
from edgeq.errors import EdgeqError, UsageError

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}  # no filter


def test_the_typed_keywords_are_the_options_of_the_table():
    kinds = {name: option.kind | None if option.optional else option.kind for name, option in options().items()}
    assert get_type_hints(Sampling) == kinds


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities)).astype(np.float32)


def drawn(logits: np.ndarray, draws: int = 4000, recent: tuple[int, ...] = (), **params) -> dict[int, float]:
    """Share of each token among many draws."""
    sampler = Sampler(**(PLAIN | {"seed": 7} | params))
    counts = Counter(sampler.sample(logits, recent) for _ in range(draws))
    return {token: count / draws for token, count in sorted(counts.items())}


def test_greedy_takes_the_largest_and_the_lowest_id_at_a_tie():
    sampler = Sampler(temperature=0)
    assert sampler.sample(np.array([1, 5, 2, 5], np.float32)) == 1
    assert sampler.sample(np.array([-3, -2, -np.inf], np.float32)) == 1


def test_draws_follow_the_probabilities():
    shares = drawn(logits_of(0.5, 0.3, 0.2))
    assert shares == pytest.approx({0: 0.5, 1: 0.3, 2: 0.2}, abs=0.03)


def test_temperature_sharpens_and_flattens():
    # p^(1/T), normalised: T = 0.5 squares the probabilities, T = 2 takes their roots.
    assert drawn(logits_of(0.8, 0.2), temperature=0.5)[0] == pytest.approx(0.64 / 0.68, abs=0.03)
    assert drawn(logits_of(0.8, 0.2), temperature=2.0)[0] == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {0, 1, 3}),
        ({"top_k": 9}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.41}, {0, 1}),
        ({"top_p": 0.91}, {0, 1, 3, 2}),
        ({"min_p": 0.74}, {0, 1}),
        ({"min_p": 0.76}, {1}),
        ({"min_p": 1.0}, {1}),
        ({"top_k": 2, "top_p": 0.58}, {0, 1}),  # of the two, the first has 4/7 = 0.571
        ({"top_k": 2, "top_p": 0.57}, {1}),
        ({"top_p": 0.91, "min_p": 0.3}, {0, 1, 3}),
    ],
)
def test_filters_keep(params, kept):
    assert set(drawn(logits_of(0.3, 0.4, 0.08, 0.17, 0.05), 600, **params)) == kept


def test_the_filters_look_at_probabilities_before_temperature():
    hot = drawn(logits_of(0.6, 0.3, 0.1), 600, top_p=0.85, temperature=50.0)
    assert set(hot) == {0, 1}


def test_repetition_penalty():
    logits = np.array([2.0, 1.5, -1.0, -1.5], np.float32)
    greedy = Sampler(temperature=0, repetition_penalty=2.0, repetition_window=2)
    assert greedy.sample(logits, [0]) == 1
    assert greedy.sample(logits, [0, 0, 0]) == 1, "a token is penalized once, however often it was there"
    assert greedy.sample(logits, [0, 3, 3]) == 0, "out of the window"
    assert logits[0] == 2.0, "the caller's logits stay"
    negative = np.array([-1.0, -1.5], np.float32)
    assert greedy.sample(negative, [0]) == 1, "a negative logit goes down"
    even = drawn(np.array([2 * math.log(2), math.log(2)], np.float32), recent=(0,), repetition_penalty=2.0)
    assert even[0] == pytest.approx(0.5, abs=0.03)


def test_a_seed_repeats_the_draws():
    logits = np.zeros(1000, np.float32)
    first, second, other = (
        [sampler.sample(logits) for _ in range(20)] for sampler in (Sampler(**PLAIN, seed=seed) for seed in (1, 1, 2))
    )
    assert first == second != other
    assert len(set(first)) > 10


def test_masked_tokens_are_never_drawn():
    logits = np.full(8, -np.inf, np.float32)
    logits[[2, 5]] = 0
    assert set(drawn(logits, 200)) == {2, 5}
    assert set(drawn(logits, 200, top_k=5, top_p=0.9, min_p=0.1)) == {2, 5}


@pytest.mark.parametrize("k", [1, 2, 40, 63, 200])
@pytest.mark.parametrize("size", [200, 5000, 6401])
def test_top_agrees_with_a_full_sort(k, size):
    rng = np.random.default_rng(size + k)
    for logits in (rng.normal(size=size), rng.integers(0, 5, size), np.zeros(size)):
        values = logits.astype(np.float32)
        expected = np.sort(np.lexsort((np.arange(size), -values))[:k])
        assert np.array_equal(top_ids(values, k), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_numbers_are_an_error(bad):
    with pytest.raises(EdgeqError, match=r"computed (nan|inf) for token 1"):
        Sampler(temperature=0).sample(np.array([0, bad, 0], np.float32))


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_window": -2},
        {"seed": -1},
    ],
)
def test_values_that_cannot_work_are_refused(params):
    with pytest.raises(UsageError, match=f"^{next(iter(params))} is "):
        Sampler(**params)


@pytest.mark.parametrize("option", ["temperature", "presence_penalty", "repetition_penalty", "dry_multiplier"])
@pytest.mark.parametrize("value", [10**400, 1e300, 1e31])
def test_numbers_that_single_precision_does_not_hold(option, value):
    with pytest.raises(UsageError, match=rf"{option} is .*: it must be"):
        Sampler(**{option: value})
    with pytest.raises(UsageError, match=r"repetition_penalty is .* at least 1e-30"):
        Sampler(repetition_penalty=1e-300)
    assert Sampler(temperature=1e-300, min_p=1e-300).sample(np.array([1, 5, 2], np.float32)) == 1


def test_biases_that_single_precision_does_not_hold():
    with pytest.raises(UsageError, match="logit_bias is"):
        Sampler(logit_bias={5: 1e300})
    Sampler(logit_bias={5: -math.inf, 6: 0, 7: -3.5})
