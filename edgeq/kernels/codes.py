"""How a kernel reads each quantized block type: the header as f32 rows of 16 scales, the codes as lines of 64 bytes.

From one row of the block table come the matvec, the matmul and the embedding lookup of a type. Layouts are those of
`formats/blocks.md`. Mins come out negated, so that every kernel only adds.
"""

from types import SimpleNamespace

import numpy as np

from edgeq.blocks.packing import CODE_LINES
from edgeq.blocks.table import SUPER_BLOCK, BlockType, block_type
from edgeq.kernels import codes_tables
from edgeq.simd.body import Codes
from edgeq.simd.isa import Isa
from edgeq.simd.lookup import load_e8m0x16, lookup
from edgeq.simd.memory import stack
from edgeq.simd.pieces import make_line, make_six_bits
from edgeq.simd.vector import (
    bits_u8x64,
    device,
    load_bf16x16,
    load_f16x16,
    load_f32x16,
    load_i8x16,
    load_u8x16,
    load_u8x64,
    mul,
    neg,
    or_shifted_u8x64,
    store_f32x16,
    store_u8x64,
    u8x16_to_f32,
    zero_f32x16,
)

ROW = 64  # bytes of 16 f32, and of one code line
SCRATCH = 512  # bytes of the codes of a super-block's scales and mins

# Plain types: how 16 elements are loaded as f32, and their bytes
FLOATS = {"F32": (load_f32x16, 64), "F16": (load_f16x16, 32), "BF16": (load_bf16x16, 32)}


def reader(name: str, isa: Isa) -> SimpleNamespace:
    """How a type is read, with the constants of its table row.

    All types: `pair(codes, i)` gives two code lines, as numbers less `zero_point`; `header(block, scales, mins)` writes
    f32 rows of 16 scales and mins. Beyond that a kernel takes what is cheap:

    - values in two bytes: `low_pair(codes, i)` gives the low ones, `pair` the high ones, and `table` the values;
    - scales of their own (f16, f32, exponents): `scale_row(block, group)` and `min_row(block, group)`, f32;
    - scales that are small integers times d (`codes.coded`): `scale_codes(block, scratch)`, the addresses of rows of 16
      bytes, of the scales and of the mins, unpacked into SCRATCH bytes if need be; and `factors(block)`, the f32 rows d
      and -dmin.
    """
    row: BlockType = block_type(name)
    pair, (scales, second) = _PAIRS[row.code_bits], _header_parts(row)
    bits, zero_point = max(row.bits, 4), row.zero_point
    low_pair = None
    if row.scales == "f32":
        bits, zero_point, (high, low) = 8, 128, codes_tables.two_bytes(row)
        pair, low_pair = (codes_tables.make_pair(lookup(isa, table)) for table in (high, low))
    elif row.code_bits == 1:  # for -1 and 1
        zero_point = 1
    elif row.values:
        bits, zero_point, table = codes_tables.numbers(row)
        pair = codes_tables.make_pair(lookup(isa, table))
    coded, signed = row.scales not in ("f16", "f32", "e8m0"), row.scales in ("i8", "s6")
    kind = SimpleNamespace(
        pair=pair,
        low_pair=low_pair,
        table=tuple(map(np.float32, row.values)) if low_pair else None,
        scale_row=None if coded else scales,
        min_row=None if coded else second,
        scale_codes=scales if coded else None,
        factors=second if coded else None,
        codes=Codes(bits, zero_point, row.scale_group == 16, coded, signed, coded or row.scales == "f16"),
        header_bytes=row.header_bytes,
        group_bytes=row.group_bytes,
        zero_point=zero_point,
        has_mins=row.has_mins,
    )
    kind.header = _make_header(kind)
    return kind


def _make_header(kind: SimpleNamespace):
    """`header(block, scales, mins)`: f32 rows of 16 scales, and of mins, for each group of 32 or 16 columns."""
    has_mins, signed, count = kind.has_mins, kind.codes.signed, 16 if kind.codes.halves else 8
    scale_row, min_row, scale_codes, factors = kind.scale_row, kind.min_row, kind.scale_codes, kind.factors

    @device
    def coded_header(block, scales, mins):
        scratch = stack(SCRATCH)
        scales_at, mins_at = scale_codes(block, scratch)
        d, dmin = factors(block)
        for i in range(count):
            code = load_i8x16(scales_at + 16 * i) if signed else u8x16_to_f32(load_u8x16(scales_at + 16 * i))
            store_f32x16(scales + i * ROW, mul(code, d))
            if has_mins:
                store_f32x16(mins + i * ROW, mul(u8x16_to_f32(load_u8x16(mins_at + 16 * i)), dmin))

    @device
    def plain_header(block, scales, mins):
        for g in range(8):
            store_f32x16(scales + g * ROW, scale_row(block, g))
            if has_mins:
                store_f32x16(mins + g * ROW, min_row(block, g))

    return coded_header if kind.codes.coded else plain_header


# ---- scales of their own: f32 rows ----


def _make_f16_row(columns: int):
    """Where so many columns share an f16."""
    shift = (columns // 32).bit_length() - 1

    @device
    def f16_row(block, group):
        return load_f16x16(block + (group >> shift) * 32)

    return f16_row


@device
def _f16_min_row(block, group):
    return load_f16x16(block + 256 + group * 32)


@device
def _f32_row(block, group):
    return load_f32x16(block + (group >> 1) * 64)


@device
def _e8m0_row(block, group):
    return load_e8m0x16(block + group * 16)


# ---- coded scales: rows of 16 bytes, and the factors that they share ----


_six_bits_of_8, _signed_of_8, _signed_of_16 = make_six_bits(8), make_six_bits(8, 32), make_six_bits(16, 32)


@device
def _scale_codes_k(block, scratch):
    _six_bits_of_8(block + 64, scratch)
    _six_bits_of_8(block + 160, scratch + 128)
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


@device
def _scale_codes_iq4_xs(block, scratch):
    """Signed: less 32."""
    _signed_of_8(block + 32, scratch)
    return scratch, scratch


@device
def _scale_codes_q3_k(block, scratch):
    """Signed: less 32."""
    _signed_of_16(block + 32, scratch)
    return scratch, scratch


@device
def _scale_codes_q2_k(block, scratch):
    for i in range(4):
        both = load_u8x64(block + 64 + 64 * i)
        store_u8x64(scratch + 64 * i, bits_u8x64(both, 0, 15))
        store_u8x64(scratch + 256 + 64 * i, bits_u8x64(both, 4, 15))
    return scratch, scratch + 256


# ---- codes: group address, i in 0..3 -> code lines 2i and 2i + 1 ----


@device
def pair_4(codes, i):
    packed = load_u8x64(codes + i * 64)
    return bits_u8x64(packed, 0, 15), bits_u8x64(packed, 4, 15)


@device
def _pair_2(codes, i):
    packed = load_u8x64(codes + (i >> 1) * 64)
    shift = (i & 1) * 4
    return bits_u8x64(packed, shift, 3), bits_u8x64(packed, shift + 2, 3)


@device
def _pair_1(codes, i):
    """Bits twice, 0 and 2: less 1 these are what they stand for."""
    packed = load_u8x64(codes)
    if i == 0:
        twice = or_shifted_u8x64(bits_u8x64(packed, 0, 0), bits_u8x64(packed, 0, 1), 1)
        return twice, bits_u8x64(packed, 0, 2)
    return bits_u8x64(packed, 2 * i - 1, 2), bits_u8x64(packed, 2 * i, 2)


@device
def _pair_8(codes, i):
    return load_u8x64(codes + i * 128), load_u8x64(codes + i * 128 + 64)


def _make_pair(bits: int):
    """`pair` of codes that lie in pieces."""
    lines = CODE_LINES[bits]
    line0, line1, line2, line3, line4, line5, line6, line7 = (make_line(pieces) for pieces in lines)

    @device
    def pair(codes, i):
        if i == 0:
            return line0(codes), line1(codes)
        if i == 1:
            return line2(codes), line3(codes)
        if i == 2:
            return line4(codes), line5(codes)
        return line6(codes), line7(codes)

    return pair


# By the bits of a code
_PAIRS = {1: _pair_1, 2: _pair_2, 3: _make_pair(3), 4: pair_4, 5: _make_pair(5), 6: _make_pair(6), 8: _pair_8}


def _header_parts(row: BlockType):
    """(scale row, min row) of a type whose scales are its own, (scale codes, factors) where they are coded."""
    groups = SUPER_BLOCK // row.scale_group
    one_factor = _factors_6 if codes_tables.unit(row) == 1 else codes_tables.make_factors(row)
    return {
        "f16": (_make_f16_row(row.scale_group), _f16_min_row if row.has_mins else None),
        "f32": (_f32_row, None),
        "e8m0": (_e8m0_row, None),
        "u6": (_scale_codes_k, _factors_k),
        "u4": (_scale_codes_q2_k, _factors_k),
        "s6": (_scale_codes_iq4_xs if groups == 8 else _scale_codes_q3_k, one_factor),
        "i8": (_scale_codes_6, one_factor),
    }[row.scales]
