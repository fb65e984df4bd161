"""Error feedback: codes chosen column by column, each weight moved by what the errors before it leave to be mended.

The loss of a matrix W that reads rows x is tr((W - W^) H (W - W^)^T), H = E[x x^T]. With H = (I + U) D (I + U)^T, U
strictly upper triangular, it is sum_j D_j |e_j + sum_{i<j} U_ij e_i|^2 for errors e = W - W^, so column j is rounded
where w_j + sum_{i<j} U_ij e_i lies (GPTQ, arXiv:2210.17323; in this form LDLQ, arXiv:2307.13304).

Whole scale groups come one after the other, those whose inputs are largest first: what is rounded last has nobody to
mend its errors. A group's scale is chosen when its turn comes, from the weights as they have been moved.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.groups import Groups, GroupScale, groups_of
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.table import BlockType

F64 = npt.NDArray[np.float64]

TINY = 1e-30
ROWS = 2048  # of a matrix that are quantized together; a multiple of a panel's


@dataclass(frozen=True)
class Factored:
    """H for scale groups of one size: `order` int [columns], in which they are rounded; I + U, f32 [columns, columns]
    in that order; D f32 [columns], by column."""

    order: npt.NDArray[np.intp]
    upper: F32
    weights: F32


def factored(gram: F64, size: int, damping: float = 0.01) -> Factored:
    """H = `gram`, f64 [columns, columns], factored for scale groups of `size` columns. `damping` times the mean of its
    diagonal is added to that: what calibration has not seen is not zero."""
    columns = len(gram)
    damped = gram + np.eye(columns) * max(damping * float(np.trace(gram)) / columns, TINY)
    power = np.diagonal(damped)
    groups = [np.arange(first, min(first + size, columns)) for first in range(0, columns, size)]
    groups.sort(key=lambda group: -float(power[group].mean()))
    order = np.concatenate([group[np.argsort(-power[group], kind="stable")] for group in groups])
    # an upper triangle R with H = R R^T: the lower one of H upside down, turned back
    triangle = np.linalg.cholesky(damped[np.ix_(order, order)][::-1, ::-1])[::-1, ::-1]
    diagonal = np.diagonal(triangle)
    weights = np.empty(columns, np.float32)
    weights[order] = np.square(diagonal / diagonal.max())
    return Factored(order, np.ascontiguousarray(triangle / diagonal, np.float32), np.maximum(weights, 1e-20))


def quantize(target: F32, factors: Factored, bt: BlockType, threads: int = 1) -> tuple[U8, F32]:
    """Panels u8 of a matrix that gives nearly what `target`, f32 [rows, columns], gives, and the weights in them.

    The same bits come out for any number of threads.
    """
    kind = groups_of(bt)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda rows: _quantize(rows, factors, kind), _blocks(target)))
    panels, weights = zip(*parts, strict=True)
    return np.concatenate(panels), np.concatenate(weights)


def _blocks(target: F32) -> Iterator[F32]:
    for first in range(0, len(target), ROWS):
        yield target[first : first + ROWS]


def _quantize(target: F32, factors: Factored, kind: Groups) -> tuple[U8, F32]:
    wanted = np.ascontiguousarray(target.T)  # [columns, rows]
    columns, size, span = len(wanted), kind.columns, kind.span
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        multiples = [
            kind.settle(wanted[at : at + span], _scaled(factors.weights[at : at + span]))
            for at in range(0, columns, span)
        ]
        groups: list[GroupScale | None] = [None] * -(-columns // size)
        codes, decoded, errors = np.empty(wanted.shape, np.uint8), np.empty_like(wanted), np.empty_like(wanted)
        done = 0
        while done < columns:
            at = int(factors.order[done]) // size
            count = min(size, columns - at * size)
            chosen, upper = factors.order[done : done + count], factors.upper[:, done : done + count]
            moved = wanted[chosen]
            if done:
                moved += upper[:done].T @ errors[:done]
            within = multiples[at * size // span]
            groups[at] = group = kind.scale(moved, _scaled(factors.weights[chosen]), within)
            for j, column in enumerate(chosen):
                codes[column], decoded[column] = kind.column(moved[j], group)
                errors[done + j] = error = wanted[column] - decoded[column]
                moved[j + 1 :] += upper[done + j, j + 1 :, None] * error
            done += count
    found = [group for group in groups if group is not None]
    return pack_panels(kind.fields(codes, multiples, found), kind.bt), np.ascontiguousarray(decoded.T)


def _scaled(weights: F32) -> F32:
    """About 1, so that squares stay within f32."""
    scaled: F32 = weights / weights.mean(dtype=np.float32)
    return scaled
