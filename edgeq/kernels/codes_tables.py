"""Readers of the types whose 4-bit codes stand for values in a table (see `codes`): a byte shuffle looks them up.

Where values are no small integers times a unit (NF4), two tables give them in two bytes, 256 times one plus the other.
"""

import numpy as np

from edgeq.blocks.table import BlockType
from edgeq.simd.vector import bits_u8x64, device, load_f16x16, load_u8x64, mul, splat_f32, zero_f32x16

WIDE_UNIT = 1 / 32512  # 127 * 256: of values up to 1 in two bytes


def unit(row: BlockType) -> float:
    """The largest power of two up to 1 of which all values are multiples."""
    found = 1.0
    while any(value % found for value in row.values):
        found /= 2
    return found


def numbers(row: BlockType) -> tuple[int, int, list[int]]:
    """Bits and zero point of what is multiplied, and these bytes of each code: values in units, plus the zero point."""
    integers = [round(value / unit(row)) for value in row.values]
    largest = max(map(abs, integers))
    bits = 5 if largest < 16 else 6 if largest < 32 else 8
    zero_point = 1 << bits - 1
    return bits, zero_point, [integer + zero_point for integer in integers]


def two_bytes(row: BlockType) -> tuple[list[int], list[int]]:
    """The high and the low byte, each plus 128, of each value in WIDE_UNITs, rounded."""
    integers = [round(value / WIDE_UNIT) for value in row.values]
    high = [(integer + 128) >> 8 for integer in integers]
    low = [integer - 256 * byte for integer, byte in zip(integers, high, strict=True)]
    return [byte + 128 for byte in high], [byte + 128 for byte in low]


def make_pair(looked_up):
    """`pair(codes, i)` of 4-bit codes."""

    @device
    def pair(codes, i):
        packed = load_u8x64(codes + i * 64)
        return looked_up(bits_u8x64(packed, 0, 15)), looked_up(bits_u8x64(packed, 4, 15))

    return pair


def make_factors(row: BlockType):
    """`factors(block)` where an f16 d at the start of a header counts in values, not in their units."""
    size = np.float32(unit(row))

    @device
    def factors(block):
        return mul(load_f16x16(block), splat_f32(size)), zero_f32x16()

    return factors
