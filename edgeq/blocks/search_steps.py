"""Arithmetic of all scale searches, in f32; `edgeq.kernels.search` repeats it operation by operation."""

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32

F16_MAX = 65504.0
HALF_STEP = 2.0**-25  # half of f16's smallest number: what rounds small d up, so that the largest scale is in reach
TINY = 2.0**-60  # ranges below this are taken as zero: far below f16, far above where 1 / range overflows
NEIGHBOURS = (-2, -1, 0, 1, 2)  # of a factor, which are tried


def total_of(terms: F32) -> F32:
    """The sum over the first axis, first to last."""
    total: F32 = terms[0].copy()
    for term in terms[1:]:
        total += term
    return total


def weighed(terms: F32, importance: F32 | None) -> F32:
    """Terms of a sum over columns, each as often as its column's importance says; as they are without."""
    return terms if importance is None else importance * terms


def count_of(x: F32, importance: F32 | None) -> F32 | np.float32:
    """How many columns a sum over the first axis counts, each as often as its importance says."""
    return np.float32(len(x)) if importance is None else total_of(importance)


def where(condition: NDArray[np.bool_], then: F32 | np.float32, otherwise: F32 | np.float32) -> F32:
    return np.where(condition, then, otherwise)


def quotient(x: F32, y: F32) -> F32:
    """x / y where y > 0, else 0."""
    return where(y > 0, np.divide(x, y, dtype=np.float32), np.float32(0))


def half(values: F32) -> F32:
    """Rounded to f16 (clamped to its largest number); never minus zero."""
    limit = np.float32(F16_MAX)
    clamped: F32 = np.minimum(np.maximum(values, -limit), limit) + np.float32(0)
    halves: NDArray[np.float16] = clamped.astype(np.float16)
    return halves.astype(np.float32)


def multiple_of(scale: F32, largest_factor: int) -> F32:
    """d [1, lanes] of which scales [groups, lanes] >= 0 are multiples 0 to `largest_factor`."""
    return half(scale.max(axis=0, keepdims=True) / np.float32(largest_factor) + np.float32(HALF_STEP))


def inverse_of(scale: F32) -> F32:
    """1 / scale, and 0 for scales too small to divide by."""
    return where(np.abs(scale) > np.float32(TINY), np.float32(1) / scale, np.float32(0))


def biased_exponent(values: F32) -> F32:
    """The exponent of f32 >= 0 as its bits have it: 127 for 1."""
    return (values.view(np.int32) >> 23).astype(np.float32)


def power_of_two(exponent: F32) -> F32:
    """2^(e - 128), of e from 2 to 255."""
    return ((exponent.astype(np.int32) - 1) << 23).view(np.float32)


def round_between(values: F32, low: int, high: int) -> F32:
    return np.minimum(np.maximum(np.rint(values), np.float32(low)), np.float32(high))
