"""Scale search: the scales, mins and codes that lower the squared error of each block.

Three searches serve every quantized type: w = s v (`search_symmetric`), w = s q - m (`search_mins`) and w = d q + m
(`search_offsets`). All go the same way:

1. For each group try step sizes around range / levels. Each candidate fixes the codes; the best s (and m) for those
   codes is a least-squares fit, and its error needs no second pass: with residuals orthogonal to the fit,
   sum (w - x)^2 = sum x^2 - gain, where gain = s sum(x q) - m sum(x). The largest gain wins.
2. Where scales are themselves coded, d is the largest of a row's super-block over the largest factor. Neighbouring
   factors (and mins) are then tried with the error they really give.
3. d (and dmin, or m) are fitted again to the codes and factors by least squares, and kept if that helps.

Where columns are of different importance every sum counts a column as often as that says: the errors, and the sums of
the fits. Importances are E[x^2] of what a column is multiplied with, as they are: llama.cpp multiplies them with
sqrt(mean w^2 + w^2), which on a model's inputs gave products no smaller an error, of any type.

All arithmetic is f32, each operation rounded on its own (no fused multiply-add), and sums run over columns in order:
`edgeq.kernels.encode` does the same operations in the same order and gives the same bytes. Arrays are
[columns of a group, groups of a super-block, lanes], a lane being a row's super-block.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32, U8, Fields
from edgeq.blocks.search_mins import search_mins
from edgeq.blocks.search_offsets import search_offsets
from edgeq.blocks.search_symmetric import search_scales
from edgeq.blocks.table import SUPER_BLOCK, BlockType

_D = {"e8m0": np.uint8, "f32": np.float32, "row": np.float32}  # dtype of a scale, where it is no f16


LEAST_IMPORTANCE = 2.0**-24  # of the mean: a group without any is searched like one with equal importances


def relative_importance(importance: F32 | None) -> F32 | None:
    """Importances over their mean, f32 [columns]; None if all are zero."""
    if importance is None or not importance.any():
        return None
    exact = importance.astype(np.float64)
    relative: F32 = np.maximum(exact / exact.mean(), LEAST_IMPORTANCE).astype(np.float32)
    return relative


def search(weights: F32, bt: BlockType, importance: F32 | None = None) -> Fields:
    """The fields of finite f32 weights [rows, cols], cols a multiple of 32; importance is f32 [cols] (see `encode`)."""
    cols = weights.shape[1]
    relative = relative_importance(importance)
    split, span = (cols, cols) if bt.per_row else (cols - cols % SUPER_BLOCK, SUPER_BLOCK)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        parts = [
            _search_region(weights[:, first:last], None if relative is None else relative[first:last], width, bt)
            for first, last, width in ((0, split, span), (split, cols, cols - split))
            if last > first
        ]
    if len(parts) == 1:
        return parts[0]
    full, short = (vars(part) for part in parts)
    joined: dict[str, Any] = {
        key: None if full[key] is None else np.concatenate([full[key], short[key]], axis=1) for key in full
    }
    return Fields(**joined)


def _search_region(weights: F32, importance: F32 | None, width: int, bt: BlockType) -> Fields:
    """Fields of [rows, n * width], every super-block `width` columns wide."""
    rows, cols = weights.shape
    columns = width if bt.per_row else min(bt.scale_group, width)

    def per_lane(values: F32) -> F32:
        """[columns of a group, groups, lanes] of [n, cols]."""
        if width % columns:  # zeros behind the last group change none of its sums
            values = np.pad(values, ((0, 0), (0, -width % columns)))
        blocks = values.reshape(rows * cols // width, -1, columns)
        return np.ascontiguousarray(blocks.transpose(2, 1, 0))

    x = per_lane(weights)
    each = None if importance is None else per_lane(np.broadcast_to(importance, weights.shape))

    def per_row(values: F32, dtype: type) -> NDArray[Any]:
        return np.ascontiguousarray(values.T).reshape(rows, -1).astype(dtype)

    def codes_per_row(codes: F32) -> U8:
        return np.ascontiguousarray(codes.transpose(2, 1, 0)).reshape(rows, -1)[:, :cols].astype(np.uint8)

    if bt.has_mins and bt.scales == "f16":
        d, m, codes = search_offsets(x, bt.levels, each)
        return Fields(codes_per_row(codes), per_row(d, np.float16), per_row(m, np.float16))
    if bt.has_mins:
        d, dmin, scales, mins, codes = search_mins(x, bt, each)
        f16 = per_row(d, np.float16), per_row(dmin, np.float16)
        return Fields(codes_per_row(codes), *f16, per_row(scales, np.uint8), per_row(mins, np.uint8))
    d, factors, codes = search_scales(x, bt, each)
    if factors is None:
        return Fields(codes_per_row(codes), per_row(d, _D.get(bt.scales, np.float16)))
    factors = per_row(factors + np.float32(32), np.uint8) if bt.scales == "s6" else per_row(factors, np.int8)
    return Fields(codes_per_row(codes), per_row(d, np.float16), None, factors)
