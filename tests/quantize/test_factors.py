"""Error feedback: the loss under correlated inputs falls, and inputs that say little are survived."""

import numpy as np
import pytest

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.quantize.factors import factored

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
def test_it_loses_less_where_inputs_are_correlated(name: str) -> None:
    gram, rows, columns = correlated(288), 20, 288
    weights = RNG.standard_normal((rows, columns)).astype(np.float32)
    panels = factored(gram, block_type(name).coded_columns).quantize(weights, name)
    plain, found = (decode(data, rows, columns, name) for data in (encode(weights, name), panels))
    assert loss(found - weights, gram) < 0.5 * loss(plain - weights, gram)


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


@pytest.mark.parametrize("gram", [np.zeros((64, 64)), np.ones((64, 64)), np.diag([1e-20] * 32 + [1e8] * 32)])
def test_inputs_that_say_little_are_survived(gram: np.ndarray) -> None:
    """Nothing seen at all, columns that are all the same, columns that are silent."""
    weights = RNG.standard_normal((16, 64)).astype(np.float32)
    decided = decode(factored(gram, 32).quantize(weights, "Q4_K"), 16, 64, "Q4_K")
    assert np.isfinite(decided).all() and np.abs(decided - weights).max() < 1.5
