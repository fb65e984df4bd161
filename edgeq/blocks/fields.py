"""A quantized matrix as plain arrays: the one form that panels and GGUF blocks are both taken apart into."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks import headers
from edgeq.blocks.headers import U8 as U8
from edgeq.blocks.table import GROUP, SUPER_BLOCK, BlockType

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Fields:
    """Codes and scales of a quantized matrix [rows, cols].

    codes  u8  [rows, cols]
    d      [rows, scale groups]: f16, f32 or u8 where scales are "f16", "f32" or "e8m0"; f32 [rows, 1] where they are
           "row"; else f16 [rows, super-blocks]
    dmin   f16, of d's shape, or None without mins
    scales u8 or, where they are "i8", i8 [rows, scale groups], or None where d is the scale
    mins   u8 [rows, scale groups], or None without mins or where dmin is the min
    """

    codes: U8
    d: NDArray[Any]
    dmin: NDArray[np.float16] | None = None
    scales: NDArray[Any] | None = None
    mins: U8 | None = None

    @property
    def header(self) -> dict[str, NDArray[Any]]:
        """Everything but the codes, by name."""
        return {name: part for name, part in vars(self).items() if part is not None and name != "codes"}


def decode_fields(fields: Fields, bt: BlockType) -> F32:
    """The weights [rows, cols] in f32, each operation rounded to f32, in the order `formats/blocks.md` gives.

    A scale is d, or d * factor; then scale * value, + dmin or - dmin * min where there are mins.
    A `d` that is infinite or NaN decodes to what IEEE 754 arithmetic says.
    """
    rows, cols = fields.codes.shape
    if bt.values:
        values = np.array(bt.values, np.float32)[fields.codes]
    else:
        values = fields.codes.astype(np.float32)
        values -= np.float32(bt.zero_point)
    columns = min(bt.coded_columns, GROUP)
    with np.errstate(invalid="ignore", over="ignore"):
        scale = _scale(fields.d, fields.scales, cols, bt)
        weights = scale[:, :, None] * values.reshape(rows, -1, columns)
        if fields.mins is not None and fields.dmin is not None:
            weights -= _scale(fields.dmin, fields.mins, cols, bt)[:, :, None]
        elif fields.dmin is not None:
            weights += fields.dmin.astype(np.float32)[:, :, None]
    return weights.reshape(rows, cols)


def _scale(d: NDArray[Any], factors: NDArray[Any] | None, cols: int, bt: BlockType) -> F32:
    """f32 [rows, groups]: one multiplier per scale group, of groups of at most 32 columns."""
    if bt.scales == "e8m0":
        exponents = d.astype(np.int32) - 128
        return np.ldexp(np.float32(1), exponents)
    if bt.per_row:
        return np.repeat(d.astype(np.float32), cols // GROUP, axis=1)
    if factors is None:
        wide = np.repeat(d.astype(np.float32), max(bt.scale_group // GROUP, 1), axis=1)
        return wide[:, : cols // min(bt.scale_group, GROUP)]
    wide = np.repeat(d.astype(np.float32), SUPER_BLOCK // bt.scale_group, axis=1)[:, : cols // bt.scale_group]
    multiples = factors.astype(np.float32)
    if bt.scales == "s6":
        multiples -= np.float32(32)
    return wide * multiples


def empty_fields(rows: int, cols: int, bt: BlockType) -> Fields:
    """Fields of all zero bytes."""
    return Fields(np.zeros((rows, cols), np.uint8), **headers.empty(rows, cols, bt))
