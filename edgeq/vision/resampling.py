"""Images resized as Pillow does it, to the last bit: in two passes, with a filter as wide as the image shrinks, in
integers of 22 bits behind the point, rounded to 8 bits after each pass. Or as torchvision does it where the CPU has
AVX2: with so many bits behind the point as let the largest weight of a pass fit in 16.

Columns come first, as in Pillow up to 12; that of 13 begins with rows where it deems this faster, which changes a few
pixels by a few steps.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

BITS = 22  # behind the point of weights
ROWS = 16  # that are made at a time: they stay in the cache, and more memory is not needed


def _triangle(x: F64) -> F64:
    found: F64 = np.maximum(1.0 - np.abs(x), 0.0)
    return found


def _cubic(x: F64) -> F64:
    """Keys's, with a = -1/2."""
    x, a = np.abs(x), -0.5
    near, far = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * a
    found: F64 = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return found


def _lanczos(x: F64) -> F64:
    """Of three lobes."""
    found: F64 = np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3.0), 0.0)
    return found


# Pillow's number of a filter -> it, and how far it reaches
FILTERS: dict[int, tuple[Callable[[F64], F64], float]] = {1: (_lanczos, 3.0), 2: (_triangle, 1.0), 3: (_cubic, 2.0)}


def resized(image: U8, height: int, width: int, filter: int, short: bool = False) -> U8:
    """An image u8 [height, width, channels] in another size, by the filter of this number in FILTERS; with `short`
    weights as torchvision does it."""
    if image.shape[1] != width:
        image = _rows(image.swapaxes(0, 1), width, filter, short).swapaxes(0, 1)
    if image.shape[0] != height:
        image = _rows(image, height, filter, short)
    return np.ascontiguousarray(image)


def _rows(image: U8, height: int, filter: int, short: bool) -> U8:
    """With another number of rows."""
    first, weights = _taps(len(image), height, filter)
    bits = _short_bits(weights) if short else BITS
    fixed = weights * (1 << bits)
    weights = np.trunc(fixed + np.where(fixed < 0.0, -0.5, 0.5)).astype(np.int32)
    lines = np.ascontiguousarray(image).reshape(len(image), -1)
    result = np.empty((height, lines.shape[1]), np.uint8)
    for start in range(0, height, ROWS):
        here = slice(start, start + ROWS)
        total = np.full(result[here].shape, 1 << (bits - 1), np.int32)
        for tap, weight in enumerate(weights[here].T):
            at = np.minimum(first[here] + tap, len(lines) - 1)  # those past the end weigh nothing
            part = lines[at].astype(np.int32)
            part *= weight[:, None]
            total += part
        total >>= bits
        result[here] = np.clip(total, 0, 255, out=total)
    return result.reshape(height, *image.shape[1:])


def _short_bits(weights: F64) -> int:
    """How many bits behind the point leave the largest of the weights below 2^15."""
    return next((bits for bits in range(BITS) if int(0.5 + weights.max() * (2 << bits)) >= 1 << 15), BITS)


def _taps(before: int, after: int, filter: int) -> tuple[npt.NDArray[np.int64], F64]:
    """For each of `after` columns the first of `before` that it is made of, and the weights of that one and those that
    follow, f64 [after, taps]."""
    function, reach = FILTERS[filter]
    scale = before / after
    wide = max(scale, 1.0)
    reach *= wide
    middle = (np.arange(after) + 0.5) * scale
    first = np.maximum(np.trunc(middle - reach + 0.5).astype(np.int64), 0)
    end = np.minimum(np.trunc(middle + reach + 0.5).astype(np.int64), before)
    taps = min(math.ceil(reach) * 2 + 1, before)
    weights, total = np.zeros((after, taps)), np.zeros(after)
    for tap in range(taps):
        there = first + tap < end
        weights[:, tap] = np.where(there, function((tap + first - middle + 0.5) * (1.0 / wide)), 0.0)
        total += weights[:, tap]
    weights /= np.where(total != 0.0, total, 1.0)[:, None]
    return first, weights
