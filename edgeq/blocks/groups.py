"""A matrix' codes chosen column by column: what error feedback (`quantize/feedback.py`) needs of a block type.

Weights that come later depend on the errors of those before, so a group's scale is chosen when its turn comes, and the
multiples of which scales are coded before any group's. Arrays are [columns, rows]: every operation runs over all rows.
Errors are weighted by the columns' importance.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.blocks.fields import F32, U8, Fields
from edgeq.blocks.search_mins import MIN_STEPS, MOST
from edgeq.blocks.search_offsets import OFFSET_STEPS
from edgeq.blocks.search_steps import NEIGHBOURS, TINY, half, inverse_of, multiple_of, quotient, round_between, where
from edgeq.blocks.search_symmetric import FACTOR_RANGE, code_range, lowest, steps
from edgeq.blocks.table import SUPER_BLOCK, BlockType

ZERO = np.float32(0)


@dataclass(frozen=True)
class Multiples:
    """What a super-block's scales, and mins, are multiples of: f16 as f32 [rows]; ones where they are none."""

    d: F32
    dmin: F32


@dataclass(frozen=True)
class GroupScale:
    """A group's: weight = scale * value + offset, f32 [rows]; `factor` and `factor_min` as the header has them."""

    scale: F32
    offset: F32
    factor: F32
    factor_min: F32


class Groups(ABC):
    """How matrices of a block type are quantized group by group."""

    def __init__(self, bt: BlockType) -> None:
        self.bt = bt

    @property
    def columns(self) -> int:
        """Columns that share a scale."""
        return self.bt.scale_group

    @property
    def span(self) -> int:
        """Columns that share multiples."""
        return SUPER_BLOCK if self.coded else self.columns

    @property
    def coded(self) -> bool:
        """Whether scales are multiples of something that a super-block shares."""
        return self.bt.scales in MOST or self.bt.scales in FACTOR_RANGE

    @abstractmethod
    def settle(self, x: F32, importance: F32) -> Multiples:
        """The multiples for weights [up to 256 columns, rows] that are about these."""

    @abstractmethod
    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        """The scale with the least weighted error for a group's weights [columns, rows]."""

    @abstractmethod
    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        """Codes and what they decode to, f32 [rows], of one column's weights."""

    @abstractmethod
    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        """The header's fields, [rows, entries]."""

    def fields(self, codes: U8, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> Fields:
        """All of a matrix: codes u8 [columns, rows], multiples of each super-block, scales of each group."""
        return Fields(np.ascontiguousarray(codes.T), **self.header(multiples, groups))


def groups_of(bt: BlockType) -> Groups:
    """How matrices of a quantized block type are quantized group by group."""
    if bt.has_mins:
        return _Offsets(bt) if bt.scales == "f16" else _Mins(bt)
    return _Exponents(bt) if bt.scales == "e8m0" else _Symmetric(bt)


def _sum(terms: F32, importance: F32) -> F32:
    """Over the columns, weighted."""
    total: F32 = importance @ terms
    return total


def _keep_better(better: Any, new: Sequence[F32], old: Sequence[F32]) -> list[F32]:
    return [where(better, a, b) for a, b in zip(new, old, strict=True)]


def _f16(values: Sequence[F32]) -> Any:
    return np.stack(values, axis=1).astype(np.float16)


class _Mins(Groups):
    """w = s q - m, s and m multiples of d and dmin, from 0."""

    @property
    def _most(self) -> int:
        return MOST[self.bt.scales]

    def settle(self, x: F32, importance: F32) -> Multiples:
        size = self.columns
        found = [self._free(x[g : g + size], importance[g : g + size]) for g in range(0, len(x), size)]
        scales, mins = (np.stack(part) for part in zip(*found, strict=True))
        return Multiples(multiple_of(scales, self._most)[0], multiple_of(mins, self._most)[0])

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        d, dmin, most, weight = multiples.d, multiples.dmin, self._most, importance.sum(dtype=np.float32)
        total, inverse_dmin = _sum(x, importance), inverse_of(multiples.dmin)
        scale, minimum = self._free(x, importance)
        start, start_min = round_between(scale * inverse_of(d), 0, most), round_between(minimum * inverse_dmin, 0, most)
        best = [np.full_like(total, np.inf), start, start_min]
        for near in NEIGHBOURS:
            factor = round_between(start + np.float32(near), 0, most)
            codes = self._codes(x, d * factor, dmin * start_min)
            fitted = (d * factor * _sum(codes, importance) - total) / weight
            middle = round_between(fitted * inverse_dmin, 0, most)
            for beside in (-1, 0, 1):
                factor_min = round_between(middle + np.float32(beside), 0, most)
                residual = d * factor * self._codes(x, d * factor, dmin * factor_min) - dmin * factor_min - x
                error = _sum(residual * residual, importance)
                best = _keep_better(error < best[0], (error, factor, factor_min), best)
        return GroupScale(d * best[1], -(dmin * best[2]), best[1], best[2])

    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        codes = self._codes(x, group.scale, -group.offset)
        return codes, group.scale * codes + group.offset

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        return {
            "d": _f16([m.d for m in multiples]),
            "dmin": _f16([m.dmin for m in multiples]),
            "scales": np.stack([g.factor for g in groups], axis=1).astype(np.uint8),
            "mins": np.stack([g.factor_min for g in groups], axis=1).astype(np.uint8),
        }

    def _codes(self, x: F32, scale: F32, minimum: F32) -> F32:
        return round_between((x + minimum) * inverse_of(scale), 0, self.bt.levels)

    def _free(self, x: F32, importance: F32) -> tuple[F32, F32]:
        """Scale and min before they are coded: of the step with the largest gain."""
        low = np.minimum(x.min(axis=0), ZERO)
        span, total, weight = x.max(axis=0) - low, _sum(x, importance), importance.sum(dtype=np.float32)
        best = [np.full_like(total, -np.inf), np.zeros_like(total), np.zeros_like(total)]
        for step in MIN_STEPS[self.bt.bits]:
            inverse = quotient(np.full_like(span, self.bt.levels + step), where(span > TINY, span, ZERO))
            codes = np.minimum(np.rint((x - low) * inverse), np.float32(self.bt.levels))
            scale, offset, gain = _line(x, codes, importance, total, weight)
            alone = quotient(_sum(x * codes, importance), _sum(codes * codes, importance))
            scale, offset = where(offset > 0, alone, scale), np.minimum(offset, ZERO)
            gain = where(offset < 0, gain, scale * _sum(x * codes, importance))
            best = _keep_better(gain > best[0], (gain, scale, offset), best)
        return np.maximum(best[1], ZERO), -best[2]


def _line(x: F32, codes: F32, importance: F32, total: F32, weight: np.float32) -> tuple[F32, F32, F32]:
    """(scale, offset, gain) of the weighted least-squares fit x ~ scale codes + offset."""
    sum_q, sum_qq, sum_xq = _sum(codes, importance), _sum(codes * codes, importance), _sum(x * codes, importance)
    scale = quotient(weight * sum_xq - sum_q * total, weight * sum_qq - sum_q * sum_q)
    offset: F32 = np.divide(total - scale * sum_q, weight, dtype=np.float32)
    return scale, offset, scale * sum_xq + offset * total


class _Offsets(Groups):
    """w = d q + m, both f16 of the group."""

    def settle(self, x: F32, importance: F32) -> Multiples:
        ones = np.ones_like(x[0])
        return Multiples(ones, ones)

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        low, levels, weight = x.min(axis=0), self.bt.levels, importance.sum(dtype=np.float32)
        span, above = x.max(axis=0) - low, x - low
        total = _sum(above, importance)
        best = [np.full_like(total, np.inf), np.zeros_like(total), np.zeros_like(total)]
        for step in OFFSET_STEPS:
            inverse = quotient(np.full_like(span, levels + step), where(span > TINY, span, ZERO))
            codes = np.minimum(np.rint(above * inverse), np.float32(levels))
            scale, offset, _ = _line(above, codes, importance, total, weight)
            d, m = half(np.maximum(scale, ZERO)), half(low + offset)
            residual = d * round_between((x - m) * inverse_of(d), 0, levels) + m - x
            error = _sum(residual * residual, importance)
            best = _keep_better(error < best[0], (error, d, m), best)
        return GroupScale(best[1], best[2], best[1], best[2])

    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        codes = round_between((x - group.offset) * inverse_of(group.scale), 0, self.bt.levels)
        return codes, group.scale * codes + group.offset

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        return {"d": _f16([g.scale for g in groups]), "dmin": _f16([g.offset for g in groups])}


class _Symmetric(Groups):
    """w = s v, v being what a code stands for: s a signed multiple of d, or of the group, f16 or f32."""

    def __init__(self, bt: BlockType) -> None:
        super().__init__(bt)
        values = np.array(bt.values or range(code_range(bt)[0], code_range(bt)[1] + 1), np.float32)
        self._values, first = np.unique(values, return_index=True)
        self._codes = first.astype(np.float32) if bt.values else self._values + np.float32(bt.zero_point)
        self._middles = (self._values[1:] + self._values[:-1]) / np.float32(2)

    def settle(self, x: F32, importance: F32) -> Multiples:
        ones, size = np.ones_like(x[0]), self.columns
        if not self.coded:
            return Multiples(ones, ones)
        scales = [self._free(x[g : g + size], importance[g : g + size]) for g in range(0, len(x), size)]
        return Multiples(multiple_of(np.abs(np.stack(scales)), FACTOR_RANGE[self.bt.scales][1])[0], ones)

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        free, zero = self._free(x, importance), np.zeros_like(x[0])
        if not self.coded:
            scale = free if self.bt.scales == "f32" else half(free)
            return GroupScale(scale, zero, scale, zero)
        least, most = FACTOR_RANGE[self.bt.scales]
        start = round_between(free * inverse_of(multiples.d), least, most)
        best = [np.full_like(free, np.inf), start]
        for near in NEIGHBOURS:
            factor = round_between(start + np.float32(near), least, most)
            error = self._error(x, multiples.d * factor, importance)
            best = _keep_better(error < best[0], (error, factor), best)
        return GroupScale(multiples.d * best[1], zero, best[1], zero)

    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        at = np.searchsorted(self._middles, x * inverse_of(group.scale))
        return self._codes[at], group.scale * self._values[at]

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        factors = np.stack([g.factor for g in groups], axis=1)
        if not self.coded:
            return {"d": factors.astype(np.float32 if self.bt.scales == "f32" else np.float16)}
        coded = factors.astype(np.int8) if self.bt.scales == "i8" else (factors + np.float32(32)).astype(np.uint8)
        return {"d": _f16([m.d for m in multiples]), "scales": coded}

    def _nearest(self, x: F32) -> F32:
        if self.bt.values:
            return self._values[np.searchsorted(self._middles, x)]
        return round_between(x, *code_range(self.bt))

    def _error(self, x: F32, scale: F32, importance: F32) -> F32:
        residual = scale * self._nearest(x * inverse_of(scale)) - x
        return _sum(residual * residual, importance)

    def _free(self, x: F32, importance: F32) -> F32:
        """The scale before it is coded: of the step with the largest gain."""
        low, high = x.min(axis=0), x.max(axis=0)
        farthest = where(-low >= high, low, high)
        gain, scale = np.full_like(farthest, -1), np.zeros_like(farthest)
        for step in steps(self.bt):
            inverse = np.float32(lowest(self.bt) - step) * inverse_of(farthest)
            values = self._nearest(x * inverse)
            sum_qq, sum_xq = _sum(values * values, importance), _sum(x * values, importance)
            fitted = quotient(sum_xq, sum_qq)
            better = fitted * sum_xq > gain
            gain, scale = where(better, fitted * sum_xq, gain), where(better, fitted, scale)
        return scale


class _Exponents(_Symmetric):
    """w = s v with a scale 2^(e - 128) of each group (MXFP4)."""

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        largest, zero = np.abs(x).max(axis=0), np.zeros_like(x[0])
        _, middle = np.frexp(where(largest > 0, largest / np.float32(self._values[-1]), np.float32(1)))
        best = [np.full_like(largest, np.inf), zero]
        for near in (-1, 0, 1):
            exponent = np.clip(middle + near, -125, 127).astype(np.int32)
            error = self._error(x, np.ldexp(np.float32(1), exponent), importance)
            best = _keep_better(error < best[0], (error, exponent.astype(np.float32)), best)
        exponents = best[1].astype(np.int32)
        return GroupScale(np.ldexp(np.float32(1), exponents), zero, (exponents + 128).astype(np.float32), zero)

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        return {"d": np.stack([g.factor for g in groups], axis=1).astype(np.uint8)}
