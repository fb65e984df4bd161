"""How a kernel reads each quantized block type: the header as f32 rows of 16 scales, the codes as lines of 64 bytes.

From one row of the block table come the matvec, the matmul and the embedding lookup of a type. Layouts are those of
`formats/blocks.md`. Mins come out negated, so that every kernel only adds.
"""

from types import SimpleNamespace

from edgeq.blocks.table import BlockType, block_type
from edgeq.kernels import codes_simple
from edgeq.simd.memory import stack
from edgeq.simd.tiles import Codes
from edgeq.simd.vector import (
    bits_u8x64,
    device,
    load_bf16x16,
    load_bit_pairs,
    load_f16x16,
    load_f32x16,
    load_u8x16,
    load_u8x64,
    merge_bits,
    mul,
    neg,
    or_shifted_u8x64,
    scale_i8_rows,
    store_f32x16,
    store_u8x64,
    u8x16_to_f32,
    zero_f32x16,
)

ROW = 64  # bytes of 16 f32, and of one code line

# Plain types: how 16 elements are loaded as f32, and their bytes
FLOATS = {"F32": (load_f32x16, 64), "F16": (load_f16x16, 32), "BF16": (load_bf16x16, 32)}


def reader(name: str) -> SimpleNamespace:
    """How a type is read, with the constants of its table row.

    All types: `pair(codes, i)` gives two code lines, `header(block, scales, mins)` writes f32 rows of 16 scales and
    mins. Beyond that a kernel takes what is cheap:

    - f16 scales: `scale_row(block, group)` and `min_row(block, group)`, f32;
    - scales that are small integers times d (`codes.coded`): `scale_codes(block, scratch)`, the addresses of rows of 16
      bytes, of the scales and of the mins, unpacked into 256 bytes of scratch if need be; and `factors(block)`, the f32
      rows d and -dmin.
    """
    row: BlockType = block_type(name)
    header, pair, scales, second = _READERS[name]
    coded = row.scales != "f16"
    return SimpleNamespace(
        header=header,
        pair=pair,
        scale_row=None if coded else scales,
        min_row=None if coded else second,
        scale_codes=scales if coded else None,
        factors=second if coded else None,
        codes=Codes(row.bits, row.zero_point, row.scale_group == 16, coded, row.scales == "i8"),
        header_bytes=row.header_bytes,
        group_bytes=row.group_bytes,
        zero_point=row.zero_point,
        has_mins=row.has_mins,
    )


# ---- headers: block address -> f32 scales (and mins) of 16 rows per group ----


@device
def _header_per_group(block, scales, mins):
    """Q4_0, Q5_0, Q8_0: an f16 scale per group."""
    for g in range(8):
        store_f32x16(scales + g * ROW, load_f16x16(block + g * 32))


@device
def _f16_row(block, group):
    return load_f16x16(block + group * 32)


@device
def _times(codes, factor, out):
    """Eight rows of byte codes as f32, times a factor per row of weights."""
    for g in range(8):
        store_f32x16(out + g * ROW, mul(u8x16_to_f32(load_u8x16(codes + 16 * g)), factor))


@device
def _header_k(block, scales, mins):
    """Q4_K, Q5_K: 6-bit scales times d, 6-bit mins times dmin."""
    scratch = stack(256)
    scale_codes, min_codes = _scale_codes_k(block, scratch)
    d, dmin = _factors_k(block)
    _times(scale_codes, d, scales)
    _times(min_codes, dmin, mins)


@device
def _header_6(block, scales, mins):
    """Q6_K: signed 8-bit scales of 16 sub-groups, times d."""
    scale_i8_rows(block + 32, load_f16x16(block), scales)


# ---- coded scales: rows of 16 bytes, and the factors that they share ----


@device
def _six_bits(low, high, out):
    """6-bit codes of 8 groups as bytes: 4 bits of groups g and g + 4 at `low`, the top 2 of four groups at `high`."""
    nibbles = load_u8x64(low)
    store_u8x64(out, or_shifted_u8x64(bits_u8x64(nibbles, 0, 15), load_bit_pairs(high), 4))
    store_u8x64(out + 64, or_shifted_u8x64(bits_u8x64(nibbles, 4, 15), load_bit_pairs(high + 16), 4))


@device
def _scale_codes_k(block, scratch):
    _six_bits(block + 64, block + 128, scratch)
    _six_bits(block + 160, block + 224, scratch + 128)
    return scratch, scratch + 128


@device
def _factors_k(block):
    return load_f16x16(block), neg(load_f16x16(block + 32))


@device
def _scale_codes_6(block, scratch):
    return block + 32, scratch


@device
def _factors_6(block):
    return load_f16x16(block), zero_f32x16()


# ---- codes: group address, i in 0..3 -> code lines 2i and 2i + 1 ----


@device
def _pair_4(codes, i):
    packed = load_u8x64(codes + i * 64)
    return bits_u8x64(packed, 0, 15), bits_u8x64(packed, 4, 15)


@device
def _pair_5(codes, i):
    low, high = _pair_4(codes, i)
    top = load_u8x64(codes + 256)
    low = merge_bits(low, top, max(0, 4 - 2 * i), max(0, 2 * i - 4), 0x10)
    return low, merge_bits(high, top, max(0, 3 - 2 * i), max(0, 2 * i - 3), 0x10)


@device
def _pair_6(codes, i):
    low, high = _pair_4(codes, i)
    top = load_u8x64(codes + 256 + (i >> 1) * 64)
    shift = (i & 1) * 4
    low = merge_bits(low, top, 4 - shift, 0, 0x30)
    return low, merge_bits(high, top, max(0, 2 - shift), max(0, shift - 2), 0x30)


@device
def _pair_8(codes, i):
    return load_u8x64(codes + i * 128), load_u8x64(codes + i * 128 + 64)


_READERS = {
    "Q4_0": (_header_per_group, _pair_4, _f16_row, None),
    "Q4_1": (codes_simple.header_offsets, _pair_4, _f16_row, codes_simple.min_row),
    "Q5_0": (_header_per_group, _pair_5, _f16_row, None),
    "Q5_1": (codes_simple.header_offsets, _pair_5, _f16_row, codes_simple.min_row),
    "Q8_0": (_header_per_group, _pair_8, _f16_row, None),
    "Q4_K": (_header_k, _pair_4, _scale_codes_k, _factors_k),
    "Q5_K": (_header_k, _pair_5, _scale_codes_k, _factors_k),
    "Q6_K": (_header_6, _pair_6, _scale_codes_6, _factors_6),
}
