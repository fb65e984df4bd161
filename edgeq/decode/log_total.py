"""The logarithm of a sum of powers of e, to the same bits on every CPU. NumPy's and the C library's differ in their
last places from one instruction set to another; what is added, multiplied and rounded does not."""

import math
from decimal import Context, Decimal

import numpy as np
import numpy.typing as npt

_PIECE = 8192  # logits at a time: the numbers between stay in the cache
_LEAST = np.float32(-87.0)  # e to the power of less counts as this much
_PER_STEP = np.float32(1 / math.log(2))
_STEP, _REST = (
    np.float32(0.693145751953125),
    np.float32(1.428606765330187e-06),
)  # ln 2; multiples of the first are exact
_SERIES = [np.float32(1 / math.factorial(power)) for power in range(7, -1, -1)]
_DIGITS = Context(prec=20)


def log_total(logits: npt.NDArray[np.float32]) -> float:
    """ln(sum(exp(logits))) of finite logits f32 [n], within 1e-6 and mostly 1e-8; the same on every CPU."""
    largest, total = logits.max(), 0.0
    for start in range(0, len(logits), _PIECE):
        total += float(_exp(logits[start : start + _PIECE] - largest).sum(dtype=np.float64))
    return float(largest) + float(Decimal(total).ln(_DIGITS))


def _exp(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """e to the power of each, none above 0; `x` is used up. As simd/exp.py: x = n ln 2 + r, a series in r, 2**n by its
    bits."""
    np.maximum(x, _LEAST, out=x)
    n = np.rint(x * _PER_STEP)
    x -= n * _STEP
    x -= n * _REST
    power = np.full_like(x, _SERIES[0])
    for term in _SERIES[1:]:
        power *= x
        power += term
    power *= ((n.astype(np.int32) + 127) << 23).view(np.float32)
    return power
