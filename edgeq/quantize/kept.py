"""Keeping the codes of a checkpoint that is already quantized, where a block type can hold them.

weight = scale * code, code an integer with the zero point subtracted. A type that has an f16 scale per 32 columns and
enough codes on both sides of its zero point holds that without a second quantization: the scale of a larger group is
repeated. So Q4_0 holds symmetric 4-bit codes, and all of 2 and 3 bits; Q5_0 holds 4-bit codes with any zero point
(-15 to 15); Q8_0 holds symmetric 8-bit codes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.blocks.fields import U8, Fields
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.table import BLOCK_TYPES, GROUP, BlockType, block_type
from edgeq.checkpoints.packed import Packed, Rows, Survey

EXACT, ROUNDED, ENCODED = "exact", "scales rounded", "encoded again"
# What codes of up to 4 bits, and of more, are encoded in again. On Gaussian rows 4-bit codes in groups of 128 err by
# 11 % of the weights (RMS), 8-bit floats by 2.6 %, 8-bit codes of whole rows by 0.9 %; these err by 1.7 % and 0.5 %,
# which such a sum hardly shows.
WIDE = ("Q6_K", "Q8_0")
ROUNDING = 2.0**-11  # f16's largest relative rounding error where it is not subnormal


@dataclass(frozen=True)
class Kept:
    """How a packed tensor is converted: EXACT, ROUNDED or ENCODED; `source` is the kind of its matrices, `reason`
    why the codes are not kept, `scale_error` the largest relative error of a scale."""

    how: str
    source: str
    reason: str = ""
    scale_error: float = 0.0


def choose(matrices: Sequence[Packed], wanted: str | None) -> tuple[str, Kept]:
    """(type, how) of a tensor made of packed matrices. `wanted`: the type asked for, None for the smallest that keeps
    the codes, or WIDE for their bits where none does."""
    source = " and ".join(dict.fromkeys(matrix.kind for matrix in matrices))
    surveys = [matrix.survey() for matrix in matrices]
    error = max(survey.scale_error for survey in surveys)
    reason = why_not(surveys)
    if not reason:
        for bt in _candidates() if wanted is None else [block_type(wanted)]:
            if all(holds(bt, survey) for survey in surveys):
                return bt.name, Kept(EXACT if error == 0 else ROUNDED, source, scale_error=error)
        reason = "no type holds its codes" if wanted is None else f"{wanted} was asked for"
    return wanted or WIDE[max(matrix.bits for matrix in matrices) > 4], Kept(ENCODED, source, reason)


def why_not(surveys: Sequence[Survey]) -> str:
    """Why no type at all can hold such matrices; empty if one may."""
    if not all(survey.even for survey in surveys):
        return f"not every {GROUP} columns share a scale"
    if any(survey.lowest == survey.highest for survey in surveys):
        return "its codes are no multiples of a scale"
    if any(survey.scale_error > ROUNDING for survey in surveys):
        return "its scales are out of f16's range"
    return ""


def _candidates() -> list[BlockType]:
    """Types that are an f16 scale per 32 columns times a code around a zero point, the smallest first."""
    plain = [bt for bt in BLOCK_TYPES.values() if bt.scales == "f16" and bt.scale_group == GROUP and bt.zero_point]
    return sorted(plain, key=lambda bt: bt.bits)


def holds(bt: BlockType, survey: Survey) -> bool:
    """Whether a type has a code for all that a surveyed matrix may have."""
    return bt in _candidates() and -bt.zero_point <= survey.lowest and survey.highest <= bt.levels - bt.zero_point


def panels_of(rows: Rows, name: str) -> U8:
    """Panels u8 of rows whose codes the type `name` holds."""
    bt = block_type(name)
    codes = (rows.codes + np.int16(bt.zero_point)).astype(np.uint8)
    return pack_panels(Fields(codes, rows.block_scales().astype(np.float16)), bt)


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
    if how == EXACT:
        return f"{start}kept exactly, codes and scales ({types})"
    if how == ROUNDED:
        worst = max(one.scale_error for one, _, _ in group)
        return f"{start}kept, scales rounded to f16, which changes a weight by {worst:.2%} at most ({types})"
    errors = [error for _, _, error in group if error is not None]
    loss = f", RMS error {max(errors):.2%} of the weights" if errors else ""
    return f"{start}encoded again ({types}{loss}): {reason}"
