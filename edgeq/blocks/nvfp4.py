"""NVFP4 as fields of NVFP4_W: numbers of 4 bits (E2M1), of which 16 neighbours share an 8-bit float (E4M3), and all of
a matrix a factor.

An 8-bit float has four significant bits, so those of a super-block are multiples up to 127 of a power of two, the
unit, where the largest is not much more than eight times the smallest; of others the smallest are rounded.
"""

import numpy as np

from edgeq.blocks.fields import F32, U8, Fields
from edgeq.blocks.table import NVFP4_VALUES, SUPER_BLOCK

SHARING = 16  # columns that share a scale
OF_A_UNIT = np.float32(1 / NVFP4_VALUES[1])  # d that makes the least code 1


def fields_of(codes: U8, scales: F32, factor: F32) -> Fields:
    """The fields of weights 2 E2M1[codes] * scales * factor.

    codes u8 [rows, cols]; scales [rows, cols / 16] as 8-bit floats are, in f32; factor [rows, 1] or [1]. d is rounded
    to f16, and infinite past its range.
    """
    units = _units(scales)
    multiples = np.rint(scales / _of_groups(units, scales)).astype(np.int8)
    with np.errstate(over="ignore"):
        return Fields(codes, (units * (OF_A_UNIT * factor)).astype(np.float16), None, multiples)


def scales_of(fields: Fields) -> F32:
    """f32 [rows, groups]: the scales of fields, factors included."""
    assert fields.scales is not None
    scales = fields.scales.astype(np.float32)
    return scales * _of_groups(fields.d.astype(np.float32) / OF_A_UNIT, scales)


def rounded(scales: F32, factor: F32) -> float:
    """The largest error of a scale in such fields, relative to the largest of its super-block; infinite for one past
    f16's range."""
    units = _units(scales)
    of_groups = _of_groups(units, scales)
    with np.errstate(over="ignore", invalid="ignore"):
        d = units * (OF_A_UNIT * factor)
        halves = np.abs(d.astype(np.float16).astype(np.float32) - d) / np.abs(d)
    multiples = scales / of_groups
    unit_errors = np.abs(multiples - np.rint(multiples)) / 64
    return float(max(np.where(d == 0, 0, halves).max(initial=0.0), unit_errors.max(initial=0.0)))


def squares(scales: F32, factor: F32) -> tuple[float, float]:
    """(those of the errors of scales in such fields, those of the scales), summed; scales past f16's range err
    infinitely. As groups use their codes alike, the root of their ratio is nearly the relative error of the weights."""
    codes = np.zeros((len(scales), scales.shape[1] * SHARING), np.uint8)
    with np.errstate(invalid="ignore"):
        found = scales_of(fields_of(codes, scales, factor))
        exact = (scales * factor).astype(np.float64)
        return float(np.square(found - exact).sum()), float(np.square(exact).sum())


def _units(scales: F32) -> F32:
    """f32 [rows, super-blocks]: the least powers of two of which no scale is more than 127."""
    starts = np.arange(0, scales.shape[1], SUPER_BLOCK // SHARING)
    largest = np.maximum.reduceat(np.abs(scales), starts, axis=1)
    units: F32 = np.ldexp(np.float32(1), np.frexp(largest)[1] - 7)
    return units


def _of_groups(units: F32, scales: F32) -> F32:
    """Of each group, its super-block's."""
    return np.repeat(units, SUPER_BLOCK // SHARING, axis=1)[:, : scales.shape[1]]
