"""The compiled error feedback gives the bits of the NumPy reference, and a smaller loss than encoding does."""

from itertools import pairwise

import numpy as np
import pytest

from edgeq.blocks import mending, reference
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.kernels.mend_api import quantize_panels

QUANTIZED = [bt.name for bt in BLOCK_TYPES.values() if bt.quantized]


def factored(columns: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(H, order, I + U, D) of inputs that depend on one another, groups and columns in them in any order."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((4 * columns, columns)) @ (np.eye(columns) + 0.5 * rng.random((columns, columns)))
    inputs *= np.exp(rng.standard_normal(columns))
    gram = inputs.T @ inputs / len(inputs)
    groups = [rng.permutation(np.arange(at, min(at + size, columns))) for at in range(0, columns, size)]
    order = np.concatenate([groups[i] for i in rng.permutation(len(groups))])
    triangle = np.linalg.cholesky(gram[np.ix_(order, order)][::-1, ::-1])[::-1, ::-1]
    weights = np.empty(columns, np.float32)
    weights[order] = np.square(np.diagonal(triangle))
    return gram, order, (triangle / np.diagonal(triangle)).astype(np.float32), weights


def sweeps(gram: np.ndarray, order: np.ndarray, size: int, count: int = 2) -> mending.Sweeps:
    """What rounding again needs."""
    ordered, pull, weights = (
        gram[np.ix_(order, order)],
        np.zeros(gram.shape, np.float32),
        np.empty(len(gram), np.float32),
    )
    for start, stop in mending.runs(order, size):
        own = ordered[start:stop, start:stop]
        pull[:, start:stop] = np.linalg.solve(own, ordered[start:stop]).T
        triangle = np.linalg.cholesky(own[::-1, ::-1])[::-1, ::-1]
        pull[start:stop, start:stop] = triangle / np.diagonal(triangle)
        weights[order[start:stop]] = np.square(np.diagonal(triangle))
    return mending.Sweeps(count, pull, weights)


def loss(error: np.ndarray, gram: np.ndarray) -> float:
    return float(np.sum((error @ gram) * error))


@pytest.mark.parametrize("name", QUANTIZED)
def test_same_bits_as_the_reference(name):
    for columns in (96, 288):
        size = BLOCK_TYPES[name].coded_columns
        gram, order, upper, weights = factored(columns, size)
        again = sweeps(gram, order, size) if columns > 96 else None
        target = np.random.default_rng(2).standard_normal((35, columns)).astype(np.float32)
        target[0], target[1, 3], target[3] = 0, 1000, target[3] * np.float32(1e-9)
        target[4, :64], target[5] = 0, target[5] * np.float32(1e25)
        expected, weights_expected = mending.quantize(target, order, upper, weights, name, again)
        panels, decoded = quantize_panels(target, order, upper, weights, name, 2, again)
        assert np.array_equal(panels, expected)
        assert np.array_equal(decoded, weights_expected)
        assert np.array_equal(reference.decode(panels, 35, columns, name), decoded)


@pytest.mark.parametrize("name", ["Q2_K", "Q4_K", "Q6_K", "Q4_0", "Q5_1", "NF4", "MXFP4"])
def test_it_lowers_the_loss(name):
    gram, order, upper, weights = factored(288, BLOCK_TYPES[name].coded_columns)
    target = np.random.default_rng(3).standard_normal((64, 288)).astype(np.float32)
    importance = np.diagonal(gram).astype(np.float32)
    encoded = reference.decode(reference.encode(target, name, importance), 64, 288, name)
    decoded = quantize_panels(target, order, upper, weights, name)[1]
    assert loss(decoded - target, gram) < 0.6 * loss(encoded - target, gram)


@pytest.mark.parametrize("name", ["Q2_K", "Q4_K", "Q6_K", "Q4_0", "Q5_1", "NF4", "MXFP4"])
def test_each_sweep_lowers_it_in_every_row(name):
    size = BLOCK_TYPES[name].coded_columns
    gram, order, upper, weights = factored(288, size)
    target = np.random.default_rng(3).standard_normal((64, 288)).astype(np.float32)
    lost = []
    for count in range(4):
        error = quantize_panels(target, order, upper, weights, name, 1, sweeps(gram, order, size, count))[1] - target
        lost.append(np.sum((error @ gram) * error, axis=1))
    assert all((after <= before * (1 + 1e-5)).all() for before, after in pairwise(lost))
    assert lost[1].sum() < 0.98 * lost[0].sum() and lost[3].sum() < lost[1].sum()


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads):
    _, order, upper, weights = factored(96, 32)
    target = np.random.default_rng(4).standard_normal((75, 96)).astype(np.float32)
    once = quantize_panels(target, order, upper, weights, "Q4_K")
    again = quantize_panels(target, order, upper, weights, "Q4_K", threads)
    assert all(map(np.array_equal, once, again))
