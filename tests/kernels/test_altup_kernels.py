"""Gemma 3n's kernels against their NumPy twins: sums of streams, rows of another's magnitude, sparse activations."""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call

from edgeq.graph.aligned import bits, round_up
from edgeq.ops import gaussian_top, rescale, weighed_sum

BODY = next(body for body in BODIES if body.native)
SHAPES = pytest.mark.parametrize(("tokens", "width"), [(1, 64), (5, 100), (3, 8)])
THREADS = pytest.mark.parametrize("threads", [1, 3])


def rows(x: np.ndarray) -> np.ndarray:
    """x with rows padded by zeros to 32 columns and 16 rows."""
    padded = np.zeros((round_up(len(x), 16), round_up(x.shape[1], 32)), np.float32)
    padded[: len(x), : x.shape[1]] = x
    return padded


def check(found: np.ndarray, expected: np.ndarray) -> None:
    """Values as expected, and zeros around them."""
    tokens, width = expected.shape
    np.testing.assert_allclose(found[:tokens, :width], expected, rtol=3e-6, atol=3e-6)
    assert not found[:, width:].any() and not found[tokens:].any()


@SHAPES
@THREADS
@pytest.mark.parametrize("stays", [True, False])
def test_weighed_sum_matches_twin(tokens, width, threads, stays):
    rng = np.random.default_rng(width)
    x, *terms = rng.standard_normal((4, tokens, width)).astype(np.float32)
    weights = rng.standard_normal((tokens, 9)).astype(np.float32)
    source, others, table = rows(x), [rows(term) for term in terms], rows(weights)
    out = np.zeros_like(source) if stays else source
    addresses, count = np.array([*map(address, others)], np.int64), np.array([tokens], np.int64)
    call(
        BODY.kernel("weighed_sum"),
        weighed_sum.Args(
            address(source),
            source.strides[0],
            width,
            address(addresses),
            len(terms),
            address(table) + 4 * 5,
            table.strides[0],
            bits(1.0),
            address(out),
            address(count),
        ),
        threads,
    )
    check(out, weighed_sum.reference(x, terms, weights[:, 5:8], 1.0))
    assert not stays or (source[:tokens, :width] == x).all()


@SHAPES
@THREADS
def test_rescale_matches_twin(tokens, width, threads):
    rng = np.random.default_rng(width)
    x, like = rng.standard_normal((2, tokens, width)).astype(np.float32) * [[[7.0]], [[0.1]]]
    x[0] *= 1e-4  # whose mean square counts as the least
    x, like = x.astype(np.float32), like.astype(np.float32)
    source, other, count = rows(x), rows(like), np.array([tokens], np.int64)
    out = np.zeros_like(source)
    places = address(source), address(other), source.strides[0], width
    call(BODY.kernel("rescale"), rescale.Args(*places, bits(1e-5), address(out), address(count)), threads)
    expected = rescale.reference(x, like, 1e-5)
    check(out, expected)
    sizes = np.sqrt((expected**2).mean(axis=1)), np.sqrt((like**2).mean(axis=1))
    np.testing.assert_allclose(sizes[0][1:], sizes[1][1:], rtol=1e-5)
    assert sizes[0][0] < 0.5 * sizes[1][0]


@SHAPES
@THREADS
@pytest.mark.parametrize("deviations", [1.6448536, 0.0, -0.7])
def test_gaussian_top_matches_twin(tokens, width, threads, deviations):
    x = (np.random.default_rng(width).standard_normal((tokens, width)) * 3.0 + 5.0).astype(np.float32)
    source, count = rows(x), np.array([tokens], np.int64)
    source[:tokens, width:] = 9.0  # what pads a row is not measured
    out = np.zeros_like(source)
    args = gaussian_top.Args(address(source), source.strides[0], width, bits(deviations), address(out), address(count))
    call(BODY.kernel("gaussian_top"), args, threads)
    expected = gaussian_top.reference(x, deviations)
    check(out, expected)
    assert 0.0 < (expected > 0).mean() < 1.0


def test_a_row_with_no_number_has_none():
    x = np.array([[1.0, np.nan, 3.0, 2.0]], np.float32)
    source, count = rows(x), np.array([1], np.int64)
    out = np.zeros_like(source)
    args = gaussian_top.Args(address(source), source.strides[0], 4, bits(0.5), address(out), address(count))
    call(BODY.kernel("gaussian_top"), args)
    assert np.isnan(out[0, :4]).all() and not out[0, 4:].any()
