"""A matrix' codes chosen column by column: what error feedback (`mending`) needs of a block type.

Weights that come later depend on the errors of those before, so a group's scale is chosen when its turn comes, and the
multiples of which scales are coded before any group's. The searches are those that encode whole matrices
(`scale_search`). Arrays are [columns, rows]: every operation runs over all rows, and rows are independent. Errors are
weighted by the columns' importance, f32 [columns], about 1. NumPy's warnings on division are the caller's to silence.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.blocks.fields import F32, U8, Fields
from edgeq.blocks.search_mins import MOST, codes_with_min, factors_with_min, search_mins
from edgeq.blocks.search_offsets import offset_codes, search_offsets
from edgeq.blocks.search_steps import half, round_between, where
from edgeq.blocks.search_symmetric import (
    FACTOR_RANGE,
    LEAST_EXPONENT,
    best_scale,
    coded_factors,
    codes_of,
    search_scales,
)
from edgeq.blocks.table import MOST_COLUMNS, SUPER_BLOCK, BlockType

# How far `near` goes: factors, where there are mins too; factors of types without; exponents; steps of other scales
FACTORS_WITH_MIN, FACTORS, EXPONENTS, STEPS_OF_A_SCALE = 2, 4, 1, 2
STEP_OF_AN_OFFSET = 0.25  # of the scale


def step_of(bt: BlockType) -> float:
    """A step of a scale that is no multiple, as a part of it: moves the largest code by about a half."""
    return 0.5 / (bt.levels + 1)


@dataclass(frozen=True)
class Multiples:
    """What a super-block's scales, and mins, are multiples of: f16 as f32 [rows]; ones where they are none."""

    d: F32
    dmin: F32


@dataclass(frozen=True)
class GroupScale:
    """A group's: weight = scale * value + offset, f32 [rows]; `factor` and `factor_min` as the search has them."""

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
        """Columns that are rounded together: those that share a scale, where not all of a row do."""
        return self.bt.coded_columns

    @property
    def span(self) -> int:
        """Columns that share multiples."""
        return SUPER_BLOCK if self.coded else self.columns

    @property
    def coded(self) -> bool:
        """Whether scales are multiples of something that a super-block shares."""
        return self.bt.scales in MOST or self.bt.scales in FACTOR_RANGE

    def settle(self, x: F32, importance: F32) -> Multiples:
        """The multiples for weights [up to 256 columns, rows] that are about these."""
        ones = np.ones_like(x[0])
        return Multiples(ones, ones)

    @abstractmethod
    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        """The scale with the least weighted error for a group's weights [columns, rows]."""

    def near(self, group: GroupScale, multiples: Multiples) -> Iterator[GroupScale]:
        """Scales beside a group's, with which its columns may be rounded to a smaller loss once errors are mended."""
        reach, reach_min = self.reach
        for a in range(-reach, reach + 1):
            for b in range(-reach_min, reach_min + 1):
                yield self._beside(group, a, b, multiples)

    @property
    @abstractmethod
    def reach(self) -> tuple[int, int]:
        """How many steps of a scale to either side, and of its offset, `near` goes."""

    @abstractmethod
    def _beside(self, group: GroupScale, a: int, b: int, multiples: Multiples) -> GroupScale:
        """The scale so many steps on."""

    @abstractmethod
    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        """Codes and what they decode to, f32 [rows], of one column's weights."""

    @abstractmethod
    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        """The header's fields, [rows, entries]."""

    def fields(self, codes: U8, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> Fields:
        """All of a matrix: codes u8 [columns, rows], multiples of each super-block, scales of each group."""
        return Fields(np.ascontiguousarray(codes.T), **self.header(multiples, groups))

    def _split(self, x: F32) -> F32:
        """[columns of a group, groups, rows] of the columns of a super-block: as the searches have it."""
        return x.reshape(-1, self.columns, x.shape[1]).transpose(1, 0, 2)


def groups_of(bt: BlockType) -> Groups:
    """How matrices of a quantized block type are quantized group by group."""
    if bt.has_mins:
        return _Offsets(bt) if bt.scales == "f16" else _Mins(bt)
    if bt.per_row:
        return _Rows(bt)
    return _Exponents(bt) if bt.scales == "e8m0" else _Symmetric(bt)


def _one(x: F32, importance: F32) -> tuple[F32, F32]:
    """The columns of one group, and their importance, as the searches have them."""
    return x[:, None], np.broadcast_to(importance[:, None, None], (len(x), 1, x.shape[1]))


def _f16(values: Sequence[F32]) -> Any:
    return np.stack(values, axis=1).astype(np.float16)


class _Mins(Groups):
    """w = s q - m, s and m multiples of d and dmin, from 0."""

    def settle(self, x: F32, importance: F32) -> Multiples:
        d, dmin, *_ = search_mins(self._split(x), self.bt, self._split(np.broadcast_to(importance[:, None], x.shape)))
        return Multiples(d[0], dmin[0])

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        d, dmin = multiples.d, multiples.dmin
        factor, factor_min = (part[0] for part in factors_with_min(*_one(x, importance), d, dmin, self.bt))
        return GroupScale(d * factor, -(dmin * factor_min), factor, factor_min)

    @property
    def reach(self) -> tuple[int, int]:
        return FACTORS_WITH_MIN, FACTORS_WITH_MIN

    def _beside(self, group: GroupScale, a: int, b: int, multiples: Multiples) -> GroupScale:
        factor = round_between(group.factor + np.float32(a), 0, MOST[self.bt.scales])
        factor_min = round_between(group.factor_min + np.float32(b), 0, MOST[self.bt.scales])
        return GroupScale(multiples.d * factor, -(multiples.dmin * factor_min), factor, factor_min)

    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        codes = codes_with_min(x, group.scale, -group.offset, self.bt.levels)
        return codes, group.scale * codes + group.offset

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        return {
            "d": _f16([m.d for m in multiples]),
            "dmin": _f16([m.dmin for m in multiples]),
            "scales": np.stack([g.factor for g in groups], axis=1).astype(np.uint8),
            "mins": np.stack([g.factor_min for g in groups], axis=1).astype(np.uint8),
        }


class _Offsets(Groups):
    """w = d q + m, both f16 of the group."""

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        d, m, _ = search_offsets(x[:, None], self.bt.levels, _one(x, importance)[1])
        return GroupScale(d[0], m[0], d[0], m[0])

    @property
    def reach(self) -> tuple[int, int]:
        return STEPS_OF_A_SCALE, STEPS_OF_A_SCALE

    def _beside(self, group: GroupScale, a: int, b: int, multiples: Multiples) -> GroupScale:
        d = half(group.scale * np.float32(1 + a * step_of(self.bt)))
        m = half(group.offset + group.scale * np.float32(b * STEP_OF_AN_OFFSET))
        return GroupScale(d, m, d, m)

    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        codes = offset_codes(x, group.scale, group.offset, self.bt.levels)
        return codes, group.scale * codes + group.offset

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        return {"d": _f16([g.scale for g in groups]), "dmin": _f16([g.offset for g in groups])}


class _Symmetric(Groups):
    """w = s v, v being what a code stands for: s a signed multiple of d, or of the group, f16 or f32."""

    def __init__(self, bt: BlockType) -> None:
        super().__init__(bt)
        self._values = np.array(bt.values or range(-bt.zero_point, bt.levels - bt.zero_point + 1), np.float32)

    def settle(self, x: F32, importance: F32) -> Multiples:
        if not self.coded:
            return super().settle(x, importance)
        each = self._split(np.broadcast_to(importance[:, None], x.shape))
        return Multiples(search_scales(self._split(x), self.bt, each)[0][0], np.ones_like(x[0]))

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        x, importance = _one(x, importance)
        zero = np.zeros_like(multiples.d)
        if not self.coded:
            scale = search_scales(x, self.bt, importance)[0][0]
            return GroupScale(scale, zero, scale, zero)
        free = best_scale(x, importance, self.bt)
        factor = coded_factors(x, importance, free, multiples.d, self.bt)[0][0]
        return GroupScale(multiples.d * factor, zero, factor, zero)

    @property
    def reach(self) -> tuple[int, int]:
        return FACTORS if self.coded else STEPS_OF_A_SCALE, 0

    def _beside(self, group: GroupScale, a: int, b: int, multiples: Multiples) -> GroupScale:
        if self.coded:
            factor = round_between(group.factor + np.float32(a), *FACTOR_RANGE[self.bt.scales])
            return GroupScale(multiples.d * factor, group.offset, factor, group.offset)
        scale = group.scale * np.float32(1 + a * step_of(self.bt))
        scale = scale if self.bt.single_scales else half(scale)
        return GroupScale(scale, group.offset, scale, group.offset)

    def column(self, x: F32, group: GroupScale) -> tuple[F32, F32]:
        codes = codes_of(x, group.scale, self.bt)
        return codes, group.scale * self._values[codes.astype(np.uint8)]

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        factors = np.stack([g.factor for g in groups], axis=1)
        if not self.coded:
            return {"d": factors.astype(np.float32 if self.bt.single_scales else np.float16)}
        coded = factors.astype(np.int8) if self.bt.scales == "i8" else (factors + np.float32(32)).astype(np.uint8)
        return {"d": _f16([m.d for m in multiples]), "scales": coded}


class _Exponents(_Symmetric):
    """w = s v with a scale 2^(e - 128) of each group (MXFP4)."""

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        x, importance = _one(x, importance)
        return self._power(search_scales(x, self.bt, importance)[0][0])

    @property
    def reach(self) -> tuple[int, int]:
        return EXPONENTS, 0

    def _beside(self, group: GroupScale, a: int, b: int, multiples: Multiples) -> GroupScale:
        exponent = np.maximum(group.factor + np.float32(a), np.float32(LEAST_EXPONENT))
        return self._power(where(group.factor > 0, exponent, np.float32(0)))

    def _power(self, exponent: F32) -> GroupScale:
        zero = np.zeros_like(exponent)
        return GroupScale(np.ldexp(np.float32(1), exponent.astype(np.int32) - 128), zero, exponent, zero)

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        return {"d": np.stack([g.factor for g in groups], axis=1).astype(np.uint8)}


class _Rows(_Symmetric):
    """w = s v with one scale for all of a row, settled before the first column is rounded."""

    @property
    def span(self) -> int:
        return MOST_COLUMNS

    def settle(self, x: F32, importance: F32) -> Multiples:
        return Multiples(best_scale(*_one(x, importance), self.bt)[0], np.ones_like(x[0]))

    def scale(self, x: F32, importance: F32, multiples: Multiples) -> GroupScale:
        zero = np.zeros_like(multiples.d)
        return GroupScale(multiples.d, zero, multiples.d, zero)

    @property
    def reach(self) -> tuple[int, int]:
        return 0, 0

    def _beside(self, group: GroupScale, a: int, b: int, multiples: Multiples) -> GroupScale:
        return group

    def header(self, multiples: Sequence[Multiples], groups: Sequence[GroupScale]) -> dict[str, Any]:
        return {"d": multiples[0].d[:, None]}
