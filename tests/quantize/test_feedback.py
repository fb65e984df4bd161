"""Error feedback: what is packed is what was decided, and the loss under correlated inputs falls."""

import numpy as np
import pytest

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.quantize import feedback
from edgeq.quantize.feedback import factored, quantize

QUANTIZED = [name for name, bt in BLOCK_TYPES.items() if bt.quantized]
RNG = np.random.default_rng(3)


def correlated(columns: int, tokens: int = 1500) -> np.ndarray:
    """E[x x^T] of inputs a few directions of which are strong."""
    mixing = RNG.standard_normal((columns, columns)) * np.exp(-np.arange(columns) / 40)[:, None]
    x = RNG.standard_normal((tokens, columns)) @ mixing + 0.1 * RNG.standard_normal((tokens, columns))
    return x.T @ x / tokens


def loss(difference: np.ndarray, gram: np.ndarray) -> float:
    return float(np.einsum("ij,jk,ik->", difference, gram, difference))


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize(("rows", "columns"), [(40, 288), (17, 32)])
def test_panels_hold_what_was_decided(name: str, rows: int, columns: int) -> None:
    gram, bt = correlated(columns), block_type(name)
    weights = RNG.standard_normal((rows, columns)).astype(np.float32)
    panels, decided = quantize(weights, factored(gram, bt.scale_group), bt)
    assert np.array_equal(decode(panels, rows, columns, name), decided)
    if columns > 32:
        plain = decode(encode(weights, name), rows, columns, name)
        assert loss(decided - weights, gram) < 0.5 * loss(plain - weights, gram)


def test_the_factors_are_those_of_the_damped_matrix() -> None:
    gram = correlated(96)
    found = factored(gram, 32, damping=0.05)
    damped = gram + np.eye(96) * 0.05 * np.trace(gram) / 96
    order, weights = found.order, found.weights[found.order].astype(np.float64)
    assert sorted(order) == list(range(96)) and np.allclose(np.tril(found.upper, -1), 0)
    for first in range(0, 96, 32):
        assert len({column // 32 for column in order[first : first + 32]}) == 1, "groups stay together"
    again = found.upper.astype(np.float64) @ np.diag(weights) @ found.upper.T.astype(np.float64)
    expected = damped[np.ix_(order, order)]
    np.testing.assert_allclose(again * expected[-1, -1] / again[-1, -1], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["Q4_K", "Q4_0", "Q3_K"])
def test_without_correlations_nothing_is_moved(name: str) -> None:
    """Each weight is then rounded where it lies, so no other code of its group's is nearer."""
    bt, weights = block_type(name), RNG.standard_normal((16, 64)).astype(np.float32)
    _, decided = quantize(weights, factored(np.diag(RNG.uniform(0.5, 2, 64)), bt.scale_group, 0), bt)
    plain = decode(encode(weights, name), 16, 64, name)
    assert np.square(decided - weights).sum() < 1.3 * np.square(plain - weights).sum()


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "ROWS", 32)
    bt, weights = block_type("Q4_K"), RNG.standard_normal((100, 96)).astype(np.float32)
    factors = factored(correlated(96), bt.scale_group)
    one, three = (quantize(weights, factors, bt, threads) for threads in (1, 3))
    assert np.array_equal(one[0], three[0]) and np.array_equal(decode(one[0], 100, 96, "Q4_K"), one[1])


@pytest.mark.parametrize("gram", [np.zeros((64, 64)), np.ones((64, 64)), np.diag([1e-20] * 32 + [1e8] * 32)])
def test_inputs_that_say_little_are_survived(gram: np.ndarray) -> None:
    """Nothing seen at all, columns that are all the same, columns that are silent."""
    bt, weights = block_type("Q4_K"), RNG.standard_normal((16, 64)).astype(np.float32)
    _, decided = quantize(weights, factored(gram, bt.scale_group), bt)
    assert np.isfinite(decided).all() and np.abs(decided - weights).max() < 1.5
