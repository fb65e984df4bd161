"""Sketches: quantiles beside NumPy's of the values themselves; what is counted in parts adds up to the same."""

import numpy as np
import pytest

from edgeq.quantize.sketch import BINS, Sketch

RNG = np.random.default_rng(11)
PROBABILITIES = [0.0001, 0.001, 0.01, 0.1, 0.25, 0.45, 0.55, 0.75, 0.9, 0.99, 0.999, 0.9999, 1]
SAMPLES = {
    "normal": RNG.standard_normal((400, 300)),
    "shifted": RNG.standard_normal((400, 300)) + 7,
    "below zero": -RNG.exponential(3e-5, (400, 300)),
    "heavy tails": RNG.standard_cauchy((400, 300)) * 1e4,
}


@pytest.mark.parametrize("case", SAMPLES)
def test_quantiles_are_those_of_the_values(case: str):
    x = SAMPLES[case].astype(np.float32)
    sketch = Sketch.of(x)
    expected = np.quantile(x, PROBABILITIES, method="inverted_cdf")
    np.testing.assert_allclose(sketch.quantile(PROBABILITIES), expected, rtol=0.016)
    magnitudes = np.quantile(np.abs(x), PROBABILITIES, method="inverted_cdf")
    np.testing.assert_allclose(sketch.magnitudes().quantile(PROBABILITIES), magnitudes, rtol=0.016)
    assert sketch.total == x.size
    assert (sketch.minimum, sketch.maximum, sketch.magnitude) == (x.min(), x.max(), np.abs(x).max())


def test_parts_add_up_to_the_whole():
    x = SAMPLES["heavy tails"].astype(np.float32)
    whole, parts = Sketch.of(x), Sketch.of(x[250:]) + Sketch.of(x[:1]) + Sketch.of(x[1:250])
    assert np.array_equal(whole.counts, parts.counts)
    assert (whole.minimum, whole.maximum) == (parts.minimum, parts.maximum)
    assert np.array_equal(whole.channel_maxima, parts.channel_maxima)


def test_extremes():
    x = np.float32([[0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38]])
    sketch = Sketch.of(x)
    assert sketch.quantile([0, 0.3, 0.5, 0.8]).tolist() == [np.float32(-3.4e38), 0, 0, 0]
    assert sketch.quantile(1) == np.float32(3.4e38)
    assert Sketch.of(np.zeros((3, 2), np.float32)).quantile(0.5) == 0
    assert np.isnan(Sketch(np.zeros(BINS, np.int64), 0, 0, np.zeros(1, np.float32)).quantile([0, 1])).all()
    strided = np.float32(RNG.standard_normal((9, 8)))[::2, ::2]
    assert np.array_equal(Sketch.of(strided).counts, Sketch.of(strided.copy()).counts)
