"""The sum of all tokens' weights: near what f64 gives, and the same bits wherever it is computed."""

import math

import numpy as np
import pytest

from edgeq.decode.log_total import log_total


def logits(vocab: int, spread: float, seed: int = 0) -> np.ndarray:
    """Any, by integers alone: NumPy's normal numbers are not promised to be the same everywhere."""
    drawn = np.random.RandomState(seed).randint(-(1 << 20), 1 << 20, vocab)
    return drawn.astype(np.float32) * np.float32(spread / (1 << 20))


@pytest.mark.parametrize("vocab", [1, 2, 8192, 8193, 30000])
@pytest.mark.parametrize("spread", [0.01, 3.0, 40.0, 1000.0])
def test_it_is_near_the_exact_sum(vocab: int, spread: float) -> None:
    given = logits(vocab, spread)
    exact = given.astype(np.float64)
    expected = exact.max() + math.log(np.exp(exact - exact.max()).sum())
    assert log_total(given) == pytest.approx(expected, abs=1e-7)
    assert np.array_equal(given, logits(vocab, spread)), "what is given stays"


def test_it_does_not_hang_on_what_logits_lie_around() -> None:
    given = logits(500, 8.0)
    assert log_total(given + np.float32(1024)) - 1024 == pytest.approx(log_total(given), abs=1e-4)


@pytest.mark.parametrize(
    ("vocab", "spread", "bits"),
    [(100, 3.0, "0x1.7419a1bde6f6ep+2"), (2048, 12.0, "0x1.087f33434365cp+4"), (49152, 20.0, "0x1.b244a3d3355b7p+4")],
)
def test_the_bits_are_these_on_every_cpu(vocab: int, spread: float, bits: str) -> None:
    assert log_total(logits(vocab, spread)).hex() == bits
