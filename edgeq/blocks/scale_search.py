"""Scale search: the scales, mins and codes that lower the squared error of each block.

Two searches serve every quantized type. The symmetric one (Q8_0, Q4_0, Q6_K) fits w = s q; the one with mins (Q4_K,
Q5_K) fits w = s q - m, m >= 0. Both go the same way:

1. For each group try step sizes around range / levels. Each candidate fixes the codes; the best s (and m) for those
   codes is a least-squares fit, and its error needs no second pass: with residuals orthogonal to the fit,
   sum (w - x)^2 = sum x^2 - gain, where gain = s sum(x q) - m sum(x). The largest gain wins.
2. Where scales are themselves coded, d is the largest of a row's super-block over the largest factor. Neighbouring
   factors (and mins) are then tried with the error they really give.
3. d (and dmin) are fitted again to the codes and factors by least squares over the super-block, and kept if that helps.

All arithmetic is f32, each operation rounded on its own (no fused multiply-add), and sums run over columns in order:
`edgeq.kernels.encode` does the same operations in the same order and gives the same bytes. Arrays here are
[columns of a group, groups of a super-block, lanes], a lane being a row's super-block.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32, U8, Fields
from edgeq.blocks.table import SUPER_BLOCK, BlockType

F16_MAX = 65504.0
HALF_STEP = 2.0**-25  # half of f16's smallest number: what rounds small d up, so that the largest scale is in reach
TINY = 2.0**-60  # ranges below this are taken as zero: far below f16, far above where 1 / range overflows

# What is added to the largest code for each candidate step, best around where few codes are left unused.
MIN_STEPS = tuple(t / 4 for t in range(-12, 5))
SYMMETRIC_STEPS = {
    "Q4_0": tuple(t / 4 for t in range(-8, 5)),
    "Q8_0": tuple(t / 2 for t in range(-8, 9)),
    "Q6_K": tuple(t / 2 for t in range(-8, 5)),
}
# Smallest and largest signed code. Q8_0 leaves -128 out, as GGUF writers do.
CODE_RANGE = {"Q4_0": (-8, 7), "Q8_0": (-127, 127), "Q6_K": (-32, 31)}
MIN_ROUNDS = 2
NEIGHBOURS = (-2, -1, 0, 1, 2)


def search(weights: F32, bt: BlockType) -> Fields:
    """The fields of finite f32 weights [rows, cols], cols a multiple of 32."""
    cols = weights.shape[1]
    split = cols - cols % SUPER_BLOCK
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        parts = [
            _search_region(part, width, bt)
            for part, width in ((weights[:, :split], SUPER_BLOCK), (weights[:, split:], cols - split))
            if part.size
        ]
    if len(parts) == 1:
        return parts[0]
    full, short = (vars(part) for part in parts)
    joined: dict[str, Any] = {
        key: None if full[key] is None else np.concatenate([full[key], short[key]], axis=1) for key in full
    }
    return Fields(**joined)


def _search_region(weights: F32, width: int, bt: BlockType) -> Fields:
    """Fields of [rows, n * width], every super-block `width` columns wide."""
    rows, cols = weights.shape
    # [columns of a group, groups, lanes]
    x = np.ascontiguousarray(weights.reshape(rows * cols // width, -1, bt.scale_group).transpose(2, 1, 0))

    def per_row(values: F32, dtype: type) -> NDArray[Any]:
        return np.ascontiguousarray(values.T).reshape(rows, -1).astype(dtype)

    def codes_per_row(codes: F32) -> U8:
        unsigned = codes + np.float32(bt.zero_point)
        return np.ascontiguousarray(unsigned.transpose(2, 1, 0)).reshape(rows, cols).astype(np.uint8)

    if bt.has_mins:
        d, dmin, scales, mins, codes = _search_mins(x, bt.levels)
        f16 = per_row(d, np.float16), per_row(dmin, np.float16)
        return Fields(codes_per_row(codes), *f16, per_row(scales, np.uint8), per_row(mins, np.uint8))
    scale = _best_symmetric(x, bt)
    if bt.scales == "f16":
        d = _half(scale)
        return Fields(codes_per_row(_symmetric_codes(x, d, bt)), per_row(d, np.float16))
    d, scales = _factor_scales(x, scale, bt)
    codes = _symmetric_codes(x, d * scales, bt)
    return Fields(codes_per_row(codes), per_row(d, np.float16), None, per_row(scales, np.int8))


# ---- arithmetic that the kernels repeat ----


def _sum(terms: F32) -> F32:
    """The sum over the first axis, first to last."""
    total: F32 = terms[0].copy()
    for term in terms[1:]:
        total += term
    return total


def _where(condition: NDArray[np.bool_], then: F32 | np.float32, otherwise: F32 | np.float32) -> F32:
    return np.where(condition, then, otherwise)


def _quotient(x: F32, y: F32) -> F32:
    """x / y where y > 0, else 0."""
    return _where(y > 0, np.divide(x, y, dtype=np.float32), np.float32(0))


def _half(values: F32) -> F32:
    """Rounded to f16 (clamped to its largest number); never minus zero."""
    limit = np.float32(F16_MAX)
    clamped: F32 = np.minimum(np.maximum(values, -limit), limit) + np.float32(0)
    halves: NDArray[np.float16] = clamped.astype(np.float16)
    return halves.astype(np.float32)


def _multiple_of(scale: F32, largest_factor: int) -> F32:
    """d [1, lanes] of which scales [groups, lanes] >= 0 are multiples 0 to `largest_factor`."""
    return _half(scale.max(axis=0, keepdims=True) / np.float32(largest_factor) + np.float32(HALF_STEP))


def _inverse(scale: F32) -> F32:
    """1 / scale, and 0 for scales too small to divide by."""
    return _where(np.abs(scale) > np.float32(TINY), np.float32(1) / scale, np.float32(0))


def _round(values: F32, low: int, high: int) -> F32:
    return np.minimum(np.maximum(np.rint(values), np.float32(low)), np.float32(high))


# ---- w = s q - m ----


def _search_mins(x: F32, levels: int) -> tuple[F32, F32, F32, F32, F32]:
    """d, dmin [1, lanes]; scale and min factors [groups, lanes]; codes, like x."""
    total = _sum(x)
    scale, minimum = _best_with_min(x, total, levels)
    d, dmin = _multiple_of(scale, 63), _multiple_of(minimum, 63)
    scales = _round(scale * _inverse(d), 0, 63)
    mins = _round(minimum * _inverse(dmin), 0, 63)
    for _ in range(MIN_ROUNDS):
        scales, mins, error = _neighbours_with_min(x, total, d, dmin, scales, mins, levels)
        d, dmin = _refit_with_min(x, total, d, dmin, scales, mins, error, levels)
    return d, dmin, scales, mins, _codes_with_min(x, d * scales, dmin * mins, levels)


def _best_with_min(x: F32, total: F32, levels: int) -> tuple[F32, F32]:
    """Scale and min [groups, lanes] of the candidate step with the largest gain, before they are coded."""
    low = np.minimum(x.min(axis=0), np.float32(0))
    span = x.max(axis=0) - low
    gain = np.full_like(total, -1)
    scale, offset = np.zeros_like(total), np.zeros_like(total)
    for step in MIN_STEPS:
        inverse = _where(span > np.float32(TINY), np.float32(levels + step) / span, np.float32(0))
        codes = np.minimum(np.rint((x - low) * inverse), np.float32(levels))
        fit = _fit_with_min(x, total, codes)
        better = fit[0] > gain
        gain, scale, offset = (_where(better, new, old) for new, old in zip(fit, (gain, scale, offset), strict=True))
    return np.maximum(scale, np.float32(0)), -offset


def _fit_with_min(x: F32, total: F32, codes: F32) -> tuple[F32, F32, F32]:
    """(gain, scale, offset) of the least-squares fit x ~ scale * codes + offset with offset <= 0."""
    n = np.float32(len(x))
    sum_q, sum_qq, sum_xq = _sum(codes), _sum(codes * codes), _sum(x * codes)
    determinant = n * sum_qq - sum_q * sum_q
    scale = _quotient(n * sum_xq - sum_q * total, determinant)
    offset: F32 = np.divide(total - scale * sum_q, n, dtype=np.float32)
    above = offset > 0
    through_zero = _quotient(sum_xq, sum_qq)
    scale = _where(above, through_zero, scale)
    offset = _where(above, np.float32(0), offset)
    return scale * sum_xq + offset * total, scale, offset


def _codes_with_min(x: F32, scale: F32, minimum: F32, levels: int) -> F32:
    return _round((x + minimum) * _inverse(scale), 0, levels)


def _error_with_min(x: F32, scale: F32, minimum: F32, levels: int) -> F32:
    """Squared error [groups, lanes] of the decoded weights, in the decoder's order of operations."""
    residual = scale * _codes_with_min(x, scale, minimum, levels) - minimum - x
    return _sum(residual * residual)


def _neighbours_with_min(
    x: F32, total: F32, d: F32, dmin: F32, scales: F32, mins: F32, levels: int
) -> tuple[F32, F32, F32]:
    """The factors with the least error near the given ones, and that error, each [groups, lanes].

    For each neighbouring scale factor, the min that fits its codes best, and the two beside that.
    """
    error = _error_with_min(x, d * scales, dmin * mins, levels)
    best: list[F32] = [error, scales, mins]
    for near in NEIGHBOURS:
        factor = _round(scales + np.float32(near), 0, 63)
        scale = d * factor
        codes = _codes_with_min(x, scale, dmin * mins, levels)
        fitted = (scale * _sum(codes) - total) / np.float32(len(x))
        middle = _round(fitted * _inverse(dmin), 0, 63)
        for beside in (-1, 0, 1):
            factor_min = _round(middle + np.float32(beside), 0, 63)
            error = _error_with_min(x, scale, dmin * factor_min, levels)
            better = error < best[0]
            new = error, factor, factor_min
            best = [_where(better, a, b) for a, b in zip(new, best, strict=True)]
    return best[1], best[2], best[0]


def _refit_with_min(
    x: F32, total: F32, d: F32, dmin: F32, scales: F32, mins: F32, error: F32, levels: int
) -> tuple[F32, F32]:
    """d and dmin [1, lanes] fitted to factors and codes: x ~ d (scales codes) - dmin mins. Kept where error falls."""
    codes = _codes_with_min(x, d * scales, dmin * mins, levels)
    sum_q, sum_qq, sum_xq = _sum(codes), _sum(codes * codes), _sum(x * codes)
    n = np.float32(len(x))
    aa = _sum(scales * scales * sum_qq)
    ab = _sum(scales * mins * sum_q)
    bb = _sum(mins * mins * n)
    ax = _sum(scales * sum_xq)
    bx = _sum(mins * total)
    determinant = aa * bb - ab * ab
    both = np.divide(ax * bb - ab * bx, determinant, dtype=np.float32)
    new_d = _where(determinant > 0, both, _quotient(ax, aa))
    new_dmin = _quotient(ab * ax - aa * bx, determinant)
    new_d = _half(np.maximum(new_d, np.float32(0)))
    new_dmin = _half(np.maximum(new_dmin, np.float32(0)))
    new_error = _error_with_min(x, new_d * scales, new_dmin * mins, levels)
    better = _sum(new_error) < _sum(error)
    return _where(better, new_d, d), _where(better, new_dmin, dmin)


# ---- w = s q ----


def _symmetric_codes(x: F32, scale: F32, bt: BlockType) -> F32:
    return _round(x * _inverse(scale), *CODE_RANGE[bt.name])


def _candidates(x: F32, bt: BlockType) -> Iterator[F32]:
    """1 / step [groups, lanes] of each candidate: the entry farthest from zero goes to about the lowest code."""
    low, high = x.min(axis=0), x.max(axis=0)
    farthest = _where(-low >= high, low, high)
    usable = np.abs(farthest) > np.float32(TINY)
    for step in SYMMETRIC_STEPS[bt.name]:
        yield _where(usable, np.float32(CODE_RANGE[bt.name][0] - step) / farthest, np.float32(0))


def _best_symmetric(x: F32, bt: BlockType) -> F32:
    """Scale [groups, lanes] of the candidate step with the largest gain, before it is coded."""
    gain = np.full(x.shape[1:], -1, np.float32)
    scale = np.zeros_like(gain)
    for inverse in _candidates(x, bt):
        codes = _round(x * inverse, *CODE_RANGE[bt.name])
        sum_qq, sum_xq = _sum(codes * codes), _sum(x * codes)
        fitted = _quotient(sum_xq, sum_qq)
        new_gain = fitted * sum_xq
        better = new_gain > gain
        gain, scale = _where(better, new_gain, gain), _where(better, fitted, scale)
    return scale


def _symmetric_error(x: F32, scale: F32, bt: BlockType) -> F32:
    residual = scale * _symmetric_codes(x, scale, bt) - x
    return _sum(residual * residual)


def _factor_scales(x: F32, scale: F32, bt: BlockType) -> tuple[F32, F32]:
    """d [1, lanes] and signed factors [groups, lanes] that code these scales with little error."""
    d = _multiple_of(np.abs(scale), 127)
    start = _round(scale * _inverse(d), -128, 127)
    factors, error = start, _symmetric_error(x, d * start, bt)
    for near in NEIGHBOURS:
        factor = _round(start + np.float32(near), -128, 127)
        new_error = _symmetric_error(x, d * factor, bt)
        better = new_error < error
        factors, error = _where(better, factor, factors), _where(better, new_error, error)
    codes = _symmetric_codes(x, d * factors, bt)
    aa = _sum(factors * factors * _sum(codes * codes))
    ax = _sum(factors * _sum(x * codes))
    new_d = _half(np.maximum(_quotient(ax, aa), np.float32(0)))
    new_error = _symmetric_error(x, new_d * factors, bt)
    better = _sum(new_error) < _sum(error)
    return _where(better, new_d, d), factors
