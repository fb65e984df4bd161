"""NumPy reference of error feedback: codes chosen column by column, each weight moved by what the errors before it
leave to be mended (GPTQ, arXiv:2210.17323; in this form LDLQ, arXiv:2307.13304).

The loss sum_j D_j |e_j + sum_{i<j} U_ij e_i|^2 of errors e, columns counted in an order that keeps scale groups
together, is lowered by rounding column j where w_j + sum_{i<j} U_ij e_i lies. Sums run in that order, so the compiled
twin (`edgeq.kernels.mend`) gives the same bits.
"""

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.groups import GroupScale, groups_of
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.scale_search import relative_importance
from edgeq.blocks.table import block_type


def quantize(target: F32, order: NDArray[np.int64], upper: F32, weights: F32, name: str) -> tuple[U8, F32]:
    """Panels u8 of finite f32 `target` [rows, columns], and the weights f32 [rows, columns] that they decode to.

    order:   int64 [columns], in which columns are rounded: whole scale groups one after the other
    upper:   f32 [columns, columns] in that order, of which what lies above the diagonal is U
    weights: f32 [columns], by column: D
    """
    kind, wanted = groups_of(block_type(name)), np.ascontiguousarray(target.T, np.float32)
    columns, size, span = len(wanted), kind.columns, kind.span
    settling, importance = importances(order, weights, size, span)
    codes, decoded, errors = np.empty(wanted.shape, np.uint8), np.empty_like(wanted), np.empty_like(wanted)
    groups: dict[int, GroupScale] = {}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        spans = [slice(at, at + span) for at in range(0, columns, span)]
        multiples = [kind.settle(wanted[part], settling[part]) for part in spans]
        for start, stop in runs(order, size):
            chosen = order[start:stop]
            moved = wanted[chosen]
            for i in range(start):
                moved += upper[i, start:stop, None] * errors[i]
            group = kind.scale(moved, importance[start:stop], multiples[chosen[0] // span])
            groups[int(chosen[0]) // size] = group
            for j, column in enumerate(chosen):
                codes[column], decoded[column] = kind.column(moved[j], group)
                errors[start + j] = wanted[column] - decoded[column]
                moved[j + 1 :] += upper[start + j, start + j + 1 : stop, None] * errors[start + j]
    found = [groups[at] for at in range(len(groups))]
    return pack_panels(kind.fields(codes, multiples, found), kind.bt), np.ascontiguousarray(decoded.T)


def runs(order: NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Where in `order` each scale group begins and ends; the last one of a row may be short."""
    found, start = [], 0
    while start < len(order):
        first = int(order[start]) // size * size
        found.append((start, start + min(size, len(order) - first)))
        start = found[-1][1]
    return found


def importances(order: NDArray[np.int64], weights: F32, size: int, span: int) -> tuple[F32, F32]:
    """D relative to its mean: f32 [columns] by column for each span of columns that share multiples; f32 [columns] in
    `order` for each group."""
    settling, within = np.ones(len(order), np.float32), np.ones(len(order), np.float32)
    for start in range(0, len(order), span):
        part = relative_importance(weights[start : start + span])
        settling[start : start + span] = 1 if part is None else part
    for start, stop in runs(order, size):
        part = relative_importance(weights[order[start:stop]])
        within[start:stop] = 1 if part is None else part
    return settling, within
