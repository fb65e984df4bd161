"""Static scales of activations in 8 bits, one per matrix input, from a sketch of what calibration saw there.

x is held as s round(x / s), its code between -127 and 127: what is beyond the limit 127 s is clipped. The methods are
those of the guides, and of Wu et al., "Integer Quantization for Deep Learning Inference" (arXiv:2004.09602), section 4:

    minmax      nothing is clipped: the limit is the largest magnitude
    percentile  the limit is a percentile of the magnitudes
    mse         the limit that makes the mean squared error of rounding and clipping least
    entropy     the limit that makes the divergence of what is left from what was seen least, as TensorRT's calibration
                does it: Migacz, "8-bit Inference with TensorRT", GTC 2017
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeq.errors import UsageError
from edgeq.quantize.sketch import SHIFT, Sketch

F64 = npt.NDArray[np.float64]

LEVELS = 127  # codes of positive numbers
PERCENTILE = 99.99
METHODS = ("minmax", "percentile", "mse", "entropy")
WITHIN = 16  # values that stand for those of a bin, which may be four steps wide
LIMITS = 128  # that are tried for the least squared error: each 2.7 % below the one before, down to 1/32
RATIO = 32.0 ** (-1 / (LIMITS - 1))
HISTOGRAM, COARSE = 2048, 128  # bins of the histogram whose divergence is taken; those that codes leave of it


def scale(sketch: Sketch, method: str, percentile: float = PERCENTILE) -> float:
    """The scale s of a matrix's input; 1 where nothing but zeros was read. `percentile`: of the method of that name.

    Raises UsageError for an unknown method, and for a percentile that is not above 0 and at most 100.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r} of static ranges: known are {', '.join(METHODS)}")
    if not 0 < percentile <= 100:
        raise UsageError(f"a percentile of {percentile} cannot work: give one above 0, at most 100")
    find: dict[str, Callable[[Sketch], float]] = {
        "minmax": lambda seen: seen.magnitude,
        "percentile": lambda seen: float(seen.magnitudes().quantile(percentile / 100)),
        "mse": _least_squares,
        "entropy": _least_divergence,
    }
    if not sketch.magnitude:
        return 1.0
    limit = find[method](sketch) if sketch.total else sketch.magnitude
    return (limit or sketch.magnitude) / LEVELS


def _least_squares(sketch: Sketch) -> float:
    """The limit, of LIMITS below the largest magnitude, with the least squared error."""
    values, weights = _spread(sketch)
    tried = sketch.magnitude * RATIO ** np.arange(LIMITS)
    errors = [_squared_error(values, weights, limit / LEVELS) for limit in tried]
    return float(tried[int(np.argmin(errors))])


def _squared_error(values: F64, weights: F64, step: float) -> float:
    """Of magnitudes f64 [n] that stand for so many each."""
    rounded = step * np.minimum(np.rint(values / step), LEVELS)
    return float(np.square(rounded - values) @ weights)


def _least_divergence(sketch: Sketch) -> float:
    """The limit i w, w the width of a bin, for which what codes leave of the first i bins is nearest to these."""
    width = sketch.magnitude / HISTOGRAM
    values, weights = _spread(sketch)
    bins, _ = np.histogram(values, np.arange(HISTOGRAM + 1) * width, weights=weights)
    ends = range(COARSE, HISTOGRAM + 1)
    found = [_divergence(bins[:end], float(bins[end:].sum())) for end in ends]
    return ends[int(np.argmin(found))] * width


def _divergence(bins: F64, beyond: float) -> float:
    """KL(P || Q) in nats: P the bins, with what is beyond them in the last one; Q the bins after their counts were
    added up in COARSE ones, and spread again over those that are not empty."""
    reference = bins.copy()
    reference[-1] += beyond
    place = np.arange(len(bins)) * COARSE // len(bins)
    full = reference > 0
    sums, sizes = np.bincount(place, bins, COARSE), np.bincount(place, full, COARSE)
    left = np.where(full, (sums / np.maximum(sizes, 1))[place], 0.0)
    if not left.sum() or not reference.sum() or (full & (left <= 0)).any():
        return np.inf  # what is beyond stands where nothing is left
    p, q = reference[full] / reference.sum(), left[full] / left.sum()
    return float(np.sum(p * np.log(p / q)))


def _spread(sketch: Sketch) -> tuple[F64, F64]:
    """Magnitudes that stand for those of a sketch, evenly within each bin, f64, and for how many each stands."""
    counts = sketch.magnitudes().counts
    bins = np.flatnonzero(counts)
    edges = (np.stack([bins, bins + 1]).astype(np.uint32) << SHIFT).view(np.float32).astype(np.float64)
    edges[0, bins == 0] = edges[1, bins == 0] = 0.0
    parts = (np.arange(WITHIN) + 0.5) / WITHIN
    values = edges[0] + (edges[1] - edges[0]) * parts[:, None]
    weights = np.broadcast_to(counts[bins] / WITHIN, values.shape)
    return np.minimum(values, sketch.magnitude).ravel(), weights.ravel()
