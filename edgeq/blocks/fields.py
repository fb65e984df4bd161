"""A quantized matrix as plain arrays: the one form that panels and GGUF blocks are both taken apart into."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.table import GROUP, SUPER_BLOCK, BlockType

U8 = NDArray[Any]  # of u8, but NumPy's stubs call the bits of a shifted u8 signed
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Fields:
    """Codes and scales of a quantized matrix [rows, cols].

    codes  u8  [rows, cols]
    d      f16 [rows, groups of 32] where scales are "f16", else [rows, super-blocks]
    dmin   f16 [rows, super-blocks], or None without mins
    scales u8 (0..63) [rows, groups of 32] or i8 [rows, groups of 16], or None where d is the scale
    mins   u8 (0..63) [rows, groups of 32], or None
    """

    codes: U8
    d: NDArray[np.float16]
    dmin: NDArray[np.float16] | None = None
    scales: NDArray[np.uint8] | NDArray[np.int8] | None = None
    mins: U8 | None = None


def decode_fields(fields: Fields, bt: BlockType) -> F32:
    """The weights [rows, cols] in f32, each operation rounded to f32, in the order `formats/blocks.md` gives.

    "f16": d * (code - z).  "u6": (d * scale) * code - (dmin * min).  "i8": (d * scale) * (code - z).
    A `d` that is infinite or NaN decodes to what IEEE 754 arithmetic says.
    """
    rows, cols = fields.codes.shape
    codes = fields.codes.astype(np.float32)
    codes -= np.float32(bt.zero_point)
    with np.errstate(invalid="ignore", over="ignore"):
        scale = _scale(fields.d, fields.scales, cols, bt)
        weights = scale[:, :, None] * codes.reshape(rows, -1, bt.scale_group)
        if bt.has_mins:
            assert fields.dmin is not None and fields.mins is not None
            weights -= _scale(fields.dmin, fields.mins, cols, bt)[:, :, None]
    return weights.reshape(rows, cols)


def _scale(d: NDArray[np.float16], factors: NDArray[Any] | None, cols: int, bt: BlockType) -> F32:
    """f32 [rows, cols / scale_group]: one multiplier per scale group."""
    if factors is None:
        return d.astype(np.float32)
    per_super_block = SUPER_BLOCK // bt.scale_group
    wide = np.repeat(d.astype(np.float32), per_super_block, axis=1)[:, : cols // bt.scale_group]
    return wide * factors.astype(np.float32)


def empty_fields(rows: int, cols: int, bt: BlockType) -> Fields:
    """Fields of all zero bytes."""
    super_blocks = -(-cols // SUPER_BLOCK)
    per_row = cols // GROUP if bt.scales == "f16" else super_blocks
    factors: NDArray[Any] | None = None
    if bt.scales != "f16":
        factors = np.zeros((rows, cols // bt.scale_group), np.uint8 if bt.scales == "u6" else np.int8)
    return Fields(
        np.zeros((rows, cols), np.uint8),
        np.zeros((rows, per_row), np.float16),
        np.zeros((rows, super_blocks), np.float16) if bt.has_mins else None,
        factors,
        np.zeros((rows, cols // GROUP), np.uint8) if bt.has_mins else None,
    )
