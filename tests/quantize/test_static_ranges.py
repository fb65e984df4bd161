"""Static scales from sketches, beside the same methods in plain NumPy on the values themselves."""

import numpy as np
import pytest

from edgeq.errors import UsageError
from edgeq.quantize.sketch import Sketch
from edgeq.quantize.static_ranges import METHODS, scale

RNG = np.random.default_rng(5)
SAMPLES = {
    "normal": RNG.standard_normal((500, 200)),
    "laplace": RNG.laplace(size=(500, 200)) * 1e-3,
    "one sign": RNG.exponential(20, (500, 200)),
    "an outlier channel": RNG.standard_normal((500, 200)) * np.where(np.arange(200) == 7, 60, 1),
}


def error(x: np.ndarray, s: float) -> float:
    """Mean squared error of 8 bits with the scale s."""
    return float(np.mean((s * np.clip(np.rint(x / s), -127, 127) - x) ** 2))


def divergence(x: np.ndarray, limit: float) -> float:
    """As Migacz's slides say it, bin after bin: of a histogram of |x| with 2048 bins, cut at a limit, 128 levels."""
    counts, edges = np.histogram(np.abs(x), 2048, (0, np.abs(x).max()))
    end = round(limit / edges[1])
    p = counts[:end].astype(float)
    p[-1] += counts[end:].sum()
    q, levels = np.zeros(end), np.arange(end) * 128 // end
    for level in range(128):
        own = levels == level
        full = own & (p > 0)
        q[full] = counts[:end][own].sum() / max(full.sum(), 1)
    if (q[p > 0] == 0).any():
        return np.inf
    p, q = p[p > 0] / p.sum(), q[p > 0] / q.sum()
    return float(np.sum(p * np.log(p / q)))


@pytest.mark.parametrize("case", SAMPLES)
def test_scales_are_those_of_the_values(case: str):
    x = SAMPLES[case].astype(np.float32)
    sketch = Sketch.of(x)
    assert scale(sketch, "minmax") == pytest.approx(np.abs(x).max() / 127, rel=1e-6)
    for percentile in (99.9, 99.99):
        expected = np.percentile(np.abs(x), percentile) / 127
        assert scale(sketch, "percentile", percentile) == pytest.approx(expected, rel=0.02)
    best = min(error(x, s) for s in np.abs(x).max() / 127 * np.linspace(0.05, 1, 60))
    assert error(x, scale(sketch, "mse")) <= 1.02 * best


@pytest.mark.parametrize("case", ["normal", "laplace", "an outlier channel"])
def test_entropy_is_the_least_divergence_of_the_values(case: str):
    x = SAMPLES[case].astype(np.float32)
    found, width = 127 * scale(Sketch.of(x), "entropy"), np.abs(x).max() / 2048
    tried = [divergence(x, end * width) for end in range(128, 2049, 60)]
    near = [divergence(x, found + i * width) for i in range(-16, 17, 2)]  # of few values some bins are empty
    assert min(near) <= 1.1 * min(tried) < 0.2 * max(one for one in tried if np.isfinite(one))
    assert 128 * width <= found < np.abs(x).max(), "some are clipped"


def test_clipping_pays_where_few_values_are_large():
    x = SAMPLES["laplace"].astype(np.float32)
    scales = {method: scale(Sketch.of(x), method) for method in METHODS}
    assert scales["minmax"] > scales["mse"] > 0.3 * scales["minmax"]
    assert error(x, scales["mse"]) < 0.9 * error(x, scales["minmax"])


def test_zeros_have_a_scale_and_nonsense_has_none():
    zeros = Sketch.of(np.zeros((4, 32), np.float32))
    assert [scale(zeros, method) for method in METHODS] == [1, 1, 1, 1]
    mostly = Sketch.of(np.float32(np.eye(300)))
    assert all(0 < scale(mostly, method) <= 1 / 127 for method in METHODS)
    with pytest.raises(UsageError, match="unknown method 'best' of static ranges: known are minmax, percentile"):
        scale(zeros, "best")
    for percentile in (0, 101, np.nan):
        with pytest.raises(UsageError, match=r"a percentile of .* cannot work"):
            scale(zeros, "percentile", percentile)
