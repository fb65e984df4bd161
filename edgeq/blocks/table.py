"""The block-type table: one row per storage format of a weight matrix.

A matrix [N outputs, K inputs] is stored as panels of 16 rows. In a plain type (F32, F16, BF16) a panel is
[K][16] elements. In a quantized type a panel is a run of super-blocks of up to 256 columns: a header of scales, then
one group of packed codes per 32 columns; where a row has one scale it is a single header for the whole row, and all
its groups. `formats/blocks.md` gives every byte; `formats/types.json` repeats this table.

This module needs neither NumPy nor Numba.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from edgeq.errors import UnsupportedError

PANEL_ROWS = 16
GROUP = 32  # columns whose codes are stored together
SUPER_BLOCK = 256  # columns that share a header
# Of a row with one scale, whose dots are int32 sums of all its products: 128 * 127 times this is below 2**31
MOST_COLUMNS = 131072


@dataclass(frozen=True)
class BlockType:
    """One storage format.

    name             as in GGUF; own types are NF4, I8_R and those that end in W
    gguf_id          its `ggml_type` number, None of own types
    element_bytes    bytes of one weight of a plain type, 0 for a quantized type
    code_bits        bits of a code of a quantized type, 0 for a plain one
    scale_group      columns that share one scale (and min); 0 if all of a row do
    scales           how scales are coded: "f16", "f32" or "e8m0" (an exponent) of each scale group; or multiples of
                     one f16 per row and super-block: "u6", "i8", "s6" (0 to 63, of which 32 is taken away), "u4"; or
                     "row", one f32 for all of a row, which reads activations with one scale for all columns
    zero_point       code that stands for zero
    has_mins         whether each group also has a min: an f16 that is added, or a multiple that is subtracted
    header_bytes     bytes before the groups of a super-block, or of a panel whose rows have one scale, for 16 rows
    gguf_columns     columns of one GGUF block; 0 of own types
    gguf_block_bytes bytes of one GGUF block; 0 of own types
    values           what the codes stand for, where that is not code - zero_point
    """

    name: str
    gguf_id: int | None
    element_bytes: int = 0
    code_bits: int = 0
    scale_group: int = 0
    scales: str = ""
    zero_point: int = 0
    has_mins: bool = False
    header_bytes: int = 0
    gguf_columns: int = 1
    gguf_block_bytes: int = 0
    values: tuple[float, ...] = ()

    @property
    def quantized(self) -> bool:
        return self.element_bytes == 0

    @property
    def bits(self) -> int:
        """Bits of one stored weight, scales not counted."""
        return self.code_bits if self.quantized else 8 * self.element_bytes

    @property
    def levels(self) -> int:
        """The largest code of a quantized type."""
        return (1 << self.bits) - 1

    @property
    def group_bytes(self) -> int:
        """Bytes of the codes of 32 columns x 16 rows; 0 for a plain type."""
        return self.bits * GROUP * PANEL_ROWS // 8 if self.quantized else 0

    @property
    def per_row(self) -> bool:
        """Whether all weights of a row share one scale."""
        return self.scales == "row"

    @property
    def single_scales(self) -> bool:
        """Whether scales are f32, which rounds none."""
        return self.scales in ("f32", "row")

    @property
    def coded_columns(self) -> int:
        """Columns that error feedback rounds together: those that share a scale, or a group of a row that has one."""
        return self.scale_group or GROUP

    def accepts(self, cols: int) -> bool:
        """Whether a matrix with rows of `cols` weights can have this type."""
        return cols > 0 and not self.refusal(cols)

    def refusal(self, cols: int) -> str:
        """What this type needs that rows of `cols` weights are not; empty if it accepts them."""
        if self.quantized and cols % GROUP:
            return f"needs rows of a multiple of {GROUP} weights, not {cols}"
        if self.per_row and cols > MOST_COLUMNS:
            return f"needs rows of up to {MOST_COLUMNS} weights, not {cols}"
        return ""

    def panel_bytes(self, cols: int) -> int:
        """Bytes of one panel: 16 rows of `cols` weights. UnsupportedError if the type does not accept `cols`."""
        if not self.accepts(cols):
            what = self.refusal(cols) or f"needs rows of weights, not {cols}"
            raise UnsupportedError(f"{self.name} {what}: use F16")
        if not self.quantized:
            return self.element_bytes * PANEL_ROWS * cols
        headers = 1 if self.per_row else super_blocks(cols)
        return headers * self.header_bytes + cols // GROUP * self.group_bytes

    def super_block_offset(self, index: int) -> int:
        """Byte offset of super-block `index` in its panel (all super-blocks before it are full); of types that have
        such."""
        return index * (self.header_bytes + SUPER_BLOCK // GROUP * self.group_bytes)

    def tensor_bytes(self, rows: int, cols: int) -> int:
        """Bytes of a [rows, cols] matrix: its panels, the last one padded to 16 rows."""
        return panels(rows) * self.panel_bytes(cols)

    def bits_per_weight(self, cols: int) -> float:
        """Stored bits per weight, scales counted, row padding not."""
        return 8 * self.panel_bytes(cols) / (PANEL_ROWS * cols)

    def gguf_bytes(self, rows: int, cols: int) -> int:
        """Bytes of the same matrix in GGUF. UnsupportedError if it has no such type or the row is no whole blocks."""
        if self.gguf_id is None:
            raise UnsupportedError(f"GGUF has no type {self.name}")
        if cols % self.gguf_columns:
            raise UnsupportedError(f"GGUF's {self.name} needs rows of a multiple of {self.gguf_columns}, not {cols}")
        return rows * (cols // self.gguf_columns) * self.gguf_block_bytes


# What the codes of IQ4_NL and IQ4_XS stand for, and twice what those of FP4 (E2M1) do
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4_VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


# What GGUF's codebooks have: the weights of IQ1 and IQ2 types (and 0, 2 and -2); of IQ3_XXS; of IQ3_S
_SOME = (0.125, 0.875, 1, 1.125, 2, 3.125, 5.375)
IQ12_VALUES = (*(-value for value in reversed(_SOME)), 0, *_SOME, 0)
_XXS = (1, 3, 5, 7, 9, 11, 13, 15.5)
IQ3_VALUES = (*(-value for value in reversed(_XXS)), *_XXS)
IQ3S_VALUES = tuple(range(-15, 16, 2))
# Those of FP4, so small that d, 1/3 of the largest weight or so, is no subnormal f16
NVFP4_VALUES = tuple(value / 512 for value in FP4_VALUES)


# Quantiles of the normal distribution, the largest made 1 (arXiv:2305.14314, appendix E), as bitsandbytes has them
NF4_VALUES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def panels(rows: int) -> int:
    """Panels that hold `rows` rows."""
    return -(-rows // PANEL_ROWS)


def super_blocks(cols: int) -> int:
    """Super-blocks of a row of `cols` weights; the last may be short."""
    return -(-cols // SUPER_BLOCK)


BLOCK_TYPES: dict[str, BlockType] = {
    bt.name: bt
    for bt in (
        BlockType("F32", 0, element_bytes=4, gguf_block_bytes=4),
        BlockType("F16", 1, element_bytes=2, gguf_block_bytes=2),
        BlockType("BF16", 30, element_bytes=2, gguf_block_bytes=2),
        BlockType("Q8_0", 8, 0, 8, 32, "f16", 128, False, 256, 32, 34),
        BlockType("Q4_0", 2, 0, 4, 32, "f16", 8, False, 256, 32, 18),
        BlockType("Q4_1", 3, 0, 4, 32, "f16", 0, True, 512, 32, 20),
        BlockType("Q5_0", 6, 0, 5, 32, "f16", 16, False, 256, 32, 22),
        BlockType("Q5_1", 7, 0, 5, 32, "f16", 0, True, 512, 32, 24),
        BlockType("Q2_K", 10, 0, 2, 16, "u4", 0, True, 320, 256, 84),
        BlockType("Q3_K", 11, 0, 3, 16, "s6", 4, False, 224, 256, 110),
        BlockType("Q4_K", 12, 0, 4, 32, "u6", 0, True, 256, 256, 144),
        BlockType("Q5_K", 13, 0, 5, 32, "u6", 0, True, 256, 256, 176),
        BlockType("Q6_K", 14, 0, 6, 16, "i8", 32, False, 288, 256, 210),
        BlockType("IQ4_NL", 20, 0, 4, 32, "f16", 0, False, 256, 32, 18, IQ4_VALUES),
        BlockType("IQ4_XS", 23, 0, 4, 32, "s6", 0, False, 128, 256, 136, IQ4_VALUES),
        BlockType("MXFP4", 39, 0, 4, 32, "e8m0", 0, False, 128, 32, 17, FP4_VALUES),
        BlockType("NF4", None, 0, 4, 64, "f32", 0, False, 256, 0, 0, NF4_VALUES),
        BlockType("IQ12_W", None, 0, 4, 16, "i8", 0, False, 288, 0, 0, IQ12_VALUES),
        BlockType("IQ3_W", None, 0, 4, 16, "i8", 0, False, 288, 0, 0, IQ3_VALUES),
        BlockType("IQ3S_W", None, 0, 4, 16, "i8", 0, False, 288, 0, 0, IQ3S_VALUES),
        BlockType("NVFP4_W", None, 0, 4, 16, "i8", 0, False, 288, 0, 0, NVFP4_VALUES),
        BlockType("TQ2_0", 35, 0, 2, 256, "f16", 1, False, 32, 256, 66),
        BlockType("Q2_0", 42, 0, 2, 64, "f16", 1, False, 128, 64, 18),
        BlockType("Q1_0", 41, 0, 1, 128, "f16", 0, False, 64, 128, 18, (-1, 1)),
        BlockType("I8_R", None, 0, 8, 0, "row", 128, False, 64, 0, 0),
    )
}


def block_type(name: str) -> BlockType:
    """The row called `name` (GGUF's spelling, any case). UnsupportedError that lists the known names."""
    found = BLOCK_TYPES.get(name.upper())
    if found is None:
        raise UnsupportedError(f"unknown block type {name!r}: this version knows {', '.join(BLOCK_TYPES)}")
    return found


def tensor_bytes(name: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of block type `name`: panels for a matrix, matrix after matrix for three dimensions; a plain
    F32 run for a vector.

    UnsupportedError if the type is unknown, or cannot hold a tensor of that shape.
    """
    bt = block_type(name)
    if not shape or len(shape) > 3 or min(shape) < 1:
        raise UnsupportedError(f"a tensor has one to three positive dimensions, not {list(shape)}")
    if len(shape) > 1:
        return prod(shape[:-2]) * bt.tensor_bytes(shape[-2], shape[-1])
    if bt.name != "F32":
        raise UnsupportedError(f"a vector is stored as F32, not {bt.name}")
    return prod(shape) * bt.element_bytes
