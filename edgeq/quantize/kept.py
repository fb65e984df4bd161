"""Keeping the codes of a checkpoint that is already quantized, where a block type can hold them.

weight = scale * code, code an integer with the zero point subtracted. A type that has a scale per 32 columns and enough
codes on both sides of its zero point holds that without a second quantization: the scale of a larger group is repeated.
So Q4_0 holds symmetric 4-bit codes, and all of 2 and 3 bits; Q5_0 holds 4-bit codes with any zero point (-15 to 15);
Q8_0 holds symmetric 8-bit codes. Codes of a codebook are held by a type that has the same one. Where groups have
offsets, too, Q4_1 holds codes of up to 4 bits, and Q5_1 of 5. NVFP4_W holds 4-bit floats with 8-bit scales.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from edgeq.blocks import nvfp4
from edgeq.blocks.fields import F32, U8, Fields
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.table import BLOCK_TYPES, GROUP, BlockType, block_type
from edgeq.checkpoints.packed import Packed, Rows, Survey, integers

EXACT, ROUNDED, ENCODED = "exact", "rounded", "encoded again"
# What codes of up to 4 bits, and of more, are encoded in again. On Gaussian rows 4-bit codes in groups of 128 err by
# 11 % of the weights (RMS), 8-bit floats by 2.6 %, 8-bit codes of whole rows by 0.9 %; these err by 1.7 % and 0.5 %,
# which such a sum hardly shows.
WIDE = ("Q6_K", "Q8_0")
NVFP4 = "NVFP4_W"
ROUNDING = 2.0**-11  # f16's largest relative rounding error where it is not subnormal
ALIKE = 0.01  # RMS difference of two codebooks, relative to their values, up to which one stands for the other


@dataclass(frozen=True)
class Kept:
    """How a packed tensor is converted: EXACT, ROUNDED or ENCODED; `source` is the kind of its matrices, `reason` what
    was rounded, or why it was encoded again."""

    how: str
    source: str
    reason: str = ""


def choose(matrices: Sequence[Packed], wanted: str | None) -> tuple[str, Kept]:
    """(type, how) of a tensor made of packed matrices. `wanted`: the type asked for, None for the smallest that keeps
    the codes, or WIDE for their bits where none does."""
    source = " and ".join(dict.fromkeys(matrix.kind for matrix in matrices))
    surveys = [matrix.survey() for matrix in dict.fromkeys(matrices)]
    errors = [survey.small_error for survey in surveys]
    if wanted in (None, NVFP4) and None not in errors and np.isfinite(largest := max(e or 0.0 for e in errors)):
        return NVFP4, Kept(ROUNDED if largest else EXACT, source, "scales" if largest else "")
    reason = _why_not(surveys)
    if not reason:
        for bt in _candidates() if wanted is None else [block_type(wanted)]:
            rounded = [_rounded(bt, survey) for survey in surveys]
            if None not in rounded:
                what = " and ".join(sorted({text for text in rounded if text}))
                return bt.name, Kept(ROUNDED if what else EXACT, source, what)
        reason = "no type holds its codes and scales" if wanted is None else f"{wanted} was asked for"
    return wanted or WIDE[max(matrix.bits for matrix in matrices) > 4], Kept(ENCODED, source, reason)


def _why_not(surveys: Sequence[Survey]) -> str:
    """Why no type at all can hold such matrices; empty if one may."""
    if not all(survey.even(GROUP) for survey in surveys):
        return f"not every {GROUP} columns share a scale"
    if not all(len(survey.values) for survey in surveys):
        return "its codes are no multiples of a scale"
    return ""


def _candidates() -> list[BlockType]:
    """Types that are a scale per group of columns times what a code stands for, the smallest first."""
    return sorted((bt for bt in BLOCK_TYPES.values() if _plain(bt)), key=lambda bt: (bt.bits, bt.header_bytes))


def _plain(bt: BlockType) -> bool:
    signed = bool(bt.values) or bt.zero_point > 0
    return bt.scales in ("f32", "f16", "e8m0") and bt.scale_group >= GROUP and (signed or bt.has_mins)


def _values(bt: BlockType) -> F32:
    """What each code of a type stands for."""
    return np.array(bt.values or range(-bt.zero_point, bt.levels + 1 - bt.zero_point), np.float32)


def _factor(bt: BlockType, values: F32) -> float | None:
    """What a type's values are to be multiplied by to be `values`, or nearly; None if they are others."""
    own = _values(bt)
    if np.isin(values, own).all():
        return 1.0
    if not bt.values or len(values) != len(own):
        return None
    factor = float((values @ own) / (own @ own))
    return factor if np.sum((factor * own - values) ** 2) <= ALIKE**2 * np.sum(values**2) else None


def _rounded(bt: BlockType, survey: Survey) -> str | None:
    """What is rounded when a type holds a surveyed matrix, "" if nothing is; None if it cannot hold it."""
    fits = _plain(bt) and bt.has_mins == survey.offset and survey.even(bt.scale_group)
    factor = _factor(bt, survey.values) if fits else None
    if factor is None or (bt.scales == "e8m0" and not (survey.powers and factor == 1)):
        return None
    if bt.scales == "f16" and survey.f16_error > ROUNDING:
        return None
    if factor != 1:
        return "scales and codebook"
    parts = "scales and offsets" if survey.offset else "scales"
    return parts if bt.scales == "f16" and survey.f16_error else ""


def panels_of(rows: Rows, name: str) -> U8:
    """Panels u8 of rows whose codes the type `name` holds."""
    if name == NVFP4:
        return _nvfp4_panels(rows)
    bt, codes = block_type(name), rows.codes
    scales = rows.of_blocks(rows.scales, bt.scale_group)
    if rows.offsets is not None:
        offsets = rows.of_blocks(rows.offsets, bt.scale_group)
        return pack_panels(Fields(codes.astype(np.uint8), scales.astype(np.float16), offsets.astype(np.float16)), bt)
    if rows.codebook is None and not bt.values:
        codes = (codes + np.int16(bt.zero_point)).astype(np.uint8)
    else:
        lowest = 0 if rows.codebook is not None else int(codes.min())
        meant = integers(lowest, int(codes.max())) if rows.codebook is None else rows.codebook
        factor = np.float32(_factor(bt, meant) or 0)
        own = np.abs(factor * _values(bt) - meant[:, None]).argmin(axis=1)
        codes, scales = np.take(own.astype(np.uint8), codes - lowest), scales * factor
    if bt.scales == "e8m0":
        return pack_panels(Fields(codes, (np.frexp(scales)[1] + 127).astype(np.uint8)), bt)
    return pack_panels(Fields(codes, scales if bt.scales == "f32" else scales.astype(np.float16)), bt)


def _nvfp4_panels(rows: Rows) -> U8:
    """What a scale is a multiple of has 4 significant bits, and comes out of 8 as it went in."""
    assert rows.factor is not None
    factor = np.full(1, rows.factor, np.float32)
    small = rows.of_blocks(rows.scales, nvfp4.SHARING) / factor
    scales = small.astype(ml_dtypes.bfloat16).astype(np.float32)
    return pack_panels(nvfp4.fields_of(rows.codes, scales, factor), block_type(NVFP4))


def summary(tensors: Iterable[tuple[Kept, str, float | None]]) -> list[str]:
    """One line for each fate of quantized tensors; given how, type, and error of encoding again if it is known."""
    groups: dict[tuple[str, str, str], list[tuple[Kept, str, float | None]]] = {}
    for one in tensors:
        groups.setdefault((one[0].source, one[0].how, one[0].reason), []).append(one)
    return [_line(*key, group) for key, group in groups.items()]


def _line(source: str, how: str, reason: str, group: list[tuple[Kept, str, float | None]]) -> str:
    counts = Counter(kind for _, kind, _ in group)
    types = ", ".join(kind if number == len(group) else f"{number} {kind}" for kind, number in counts.most_common())
    start = f"{source}: {len(group)} {'tensor' if len(group) == 1 else 'tensors'} "
    errors = [error for _, _, error in group if error is not None]
    loss = f", RMS error {max(errors):.2%} of the weights" if errors else ""
    if how == EXACT:
        return f"{start}kept exactly, codes and scales ({types})"
    if how == ROUNDED:
        return f"{start}kept, {reason} rounded ({types}{loss})"
    return f"{start}encoded again ({types}{loss}): {reason}"
