"""NumPy reference of error feedback: codes chosen column by column, each weight moved by what the errors before it
leave to be mended (GPTQ, arXiv:2210.17323; in this form LDLQ, arXiv:2307.13304).

The loss sum_j D_j |e_j + sum_{i<j} U_ij e_i|^2 of errors e, columns counted in an order that keeps scale groups
together, is lowered by rounding column j where w_j + sum_{i<j} U_ij e_i lies. What was rounded early knew nothing of
the errors that came later: sweeps round each group again for those of all others, where that lowers the loss. Sums run
in that order, so the compiled twin (`edgeq.kernels.mend`) gives the same bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.groups import Groups, GroupScale, Multiples, groups_of
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.scale_search import relative_importance
from edgeq.blocks.search_steps import total_of, where
from edgeq.blocks.table import block_type


@dataclass(frozen=True)
class Sweeps:
    """Rounding group after group again, `count` times.

    pull:    f32 [columns, columns] in the order of columns. Of a group's columns j, pull_ij says by how much the best
             w_j moves with the error of column i outside, H_GG^-1 H_Gi; among them, above the diagonal, it is the U of
             H_GG
    weights: f32 [columns], by column: the D of each group's H_GG
    """

    count: int
    pull: F32
    weights: F32


def quantize(
    target: F32, order: NDArray[np.int64], upper: F32, weights: F32, name: str, sweeps: Sweeps | None = None
) -> tuple[U8, F32]:
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
            chosen, at = order[start:stop], int(order[start]) // size
            moved = wanted[chosen]
            for i in range(start):
                moved += upper[i, start:stop, None] * errors[i]
            part = _Part(moved, wanted[chosen], upper[start:stop, start:stop], importance[start:stop])
            groups[at] = part.best(kind, multiples[at * size // span])
            codes[chosen], decoded[chosen], _ = part.rounded(kind, groups[at])
            errors[start:stop] = wanted[chosen] - decoded[chosen]
        for start, stop in runs(order, size) * (sweeps.count if sweeps else 0):
            assert sweeps is not None
            chosen, at = order[start:stop], int(order[start]) // size
            moved = wanted[chosen]
            for row, error in zip(outside(sweeps.pull, start, stop), errors, strict=True):
                moved += row[:, None] * error
            again = importances(order, sweeps.weights, size, span)[1]
            part = _Part(moved, moved, sweeps.pull[start:stop, start:stop], again[start:stop])
            groups[at], better = part.better(kind, multiples[at * size // span], groups[at], decoded[chosen])
            new_codes, new, _ = part.rounded(kind, groups[at])
            codes[chosen] = np.where(better, new_codes, codes[chosen])
            decoded[chosen] = where(better, new, decoded[chosen])
            errors[start:stop] = wanted[chosen] - decoded[chosen]
    found = [groups[at] for at in range(len(groups))]
    return pack_panels(kind.fields(codes, multiples, found), kind.bt), np.ascontiguousarray(decoded.T)


@dataclass(frozen=True)
class _Part:
    """A group, its columns in their order: weights moved and as they are, f32 [columns, rows]; U; importances."""

    moved: F32
    wanted: F32
    upper: F32
    importance: F32

    def best(self, kind: Groups, multiples: Multiples) -> GroupScale:
        """The scale with the least loss, near the one that fits the weights best as they are when their turn comes."""
        group = kind.scale(self.moved, self.importance, multiples)
        return self._near(kind, multiples, group, self.rounded(kind, group)[2])[0]

    def better(
        self, kind: Groups, multiples: Multiples, group: GroupScale, decoded: F32
    ) -> tuple[GroupScale, NDArray[np.bool_]]:
        """The scale near that of now with the least loss, and in which rows, bool [rows], that is less than now."""
        moved, losses = self.moved.copy(), np.empty_like(self.moved)
        for j in range(len(moved)):
            losses[j] = self.importance[j] * np.square(moved[j] - decoded[j])
            moved[j + 1 :] += self.upper[j, j + 1 :, None] * (self.wanted[j] - decoded[j])
        now = total_of(losses)
        found, least = self._near(kind, multiples, group, now)
        return found, least < now

    def _near(self, kind: Groups, multiples: Multiples, group: GroupScale, loss: F32) -> tuple[GroupScale, F32]:
        """A group's scale or one near it with a loss below that, and the loss."""
        best = [loss, *vars(group).values()]
        for near in kind.near(group, multiples):
            new = [self.rounded(kind, near)[2], *vars(near).values()]
            best = [where(new[0] < best[0], a, b) for a, b in zip(new, best, strict=True)]
        return GroupScale(*best[1:]), best[0]

    def rounded(self, kind: Groups, group: GroupScale) -> tuple[F32, F32, F32]:
        """Codes and what they decode to [columns, rows], and their loss [rows], with a scale."""
        moved, codes, decoded = self.moved.copy(), np.empty_like(self.moved), np.empty_like(self.moved)
        losses = np.empty_like(self.moved)
        for j in range(len(moved)):
            codes[j], decoded[j] = kind.column(moved[j], group)
            losses[j] = self.importance[j] * np.square(moved[j] - decoded[j])
            moved[j + 1 :] += self.upper[j, j + 1 :, None] * (self.wanted[j] - decoded[j])
        return codes, decoded, total_of(losses)


def runs(order: NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Where in `order` each scale group begins and ends; the last one of a row may be short."""
    found, start = [], 0
    while start < len(order):
        first = int(order[start]) // size * size
        found.append((start, start + min(size, len(order) - first)))
        start = found[-1][1]
    return found


def outside(pull: F32, start: int, stop: int) -> F32:
    """What errors of columns outside a group, which these are of an order, do to it: f32 [columns, columns of it]."""
    found = pull[:, start:stop].copy()
    found[start:stop] = 0
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
