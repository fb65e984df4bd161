"""How a kernel reads each quantized block type: the header as f32 rows of 16 scales, the codes as lines of 64 bytes.

From one row of the block table come the matvec, the matmul and the embedding lookup of a type. Layouts are those of
`formats/blocks.md`. Mins come out negated, so that every kernel only adds.
"""

from types import SimpleNamespace

from edgeq.blocks.table import BlockType, block_type
from edgeq.kernels import codes_simple
from edgeq.simd.vector import (
    bits_u8x16,
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
    or_shifted_u8x16,
    or_shifted_u8x64,
    scale_i8_rows,
    store_f32x16,
    u8x16_to_f32,
    zero_f32x16,
)

ROW = 64  # bytes of 16 f32, and of one code line

# Plain types: how 16 elements are loaded as f32, and their bytes
FLOATS = {"F32": (load_f32x16, 64), "F16": (load_f16x16, 32), "BF16": (load_bf16x16, 32)}


def reader(name: str, late: bool = False) -> SimpleNamespace:
    """`header(block, scales, mins)` and `pair(codes, i)` of a type, with the constants of its table row.

    `rows` is how a matvec reads scales: (prepare, factors, scale row, min row), see below. `late` asks for computing
    each where it is used, instead of writing all of a header to memory first.
    """
    row: BlockType = block_type(name)
    header, pair = _READERS[name]
    return SimpleNamespace(
        header=header,
        pair=pair,
        header_bytes=row.header_bytes,
        group_bytes=row.group_bytes,
        bits=row.bits,
        zero_point=row.zero_point,
        has_mins=row.has_mins,
        halves=row.scale_group == 16,
        rows=_ROWS[name] if late else (header, _no_factors, _stored, _stored),
    )


# ---- headers: block address -> f32 scales (and mins) of 16 rows per group ----


@device
def _header_per_group(block, scales, mins):
    """Q4_0, Q5_0, Q8_0: an f16 scale per group."""
    for g in range(8):
        store_f32x16(scales + g * ROW, load_f16x16(block + g * 32))


@device
def _coded_6_bits(low, high, d, j, out):
    """Groups j and j + 4 of 8 groups of 6-bit codes, low 4 bits at `low` and top 2 at `high`, times d."""
    nibbles = load_u8x16(low + 16 * j)
    near = or_shifted_u8x16(bits_u8x16(nibbles, 0, 15), bits_u8x16(load_u8x16(high), 2 * j, 3), 4)
    far = or_shifted_u8x16(bits_u8x16(nibbles, 4, 15), bits_u8x16(load_u8x16(high + 16), 2 * j, 3), 4)
    store_f32x16(out + j * ROW, mul(u8x16_to_f32(near), d))
    store_f32x16(out + (j + 4) * ROW, mul(u8x16_to_f32(far), d))


@device
def _eight_coded(low, high, d, out):
    # written out, so that the shifts are constants whether LLVM unrolls loops or not
    _coded_6_bits(low, high, d, 0, out)
    _coded_6_bits(low, high, d, 1, out)
    _coded_6_bits(low, high, d, 2, out)
    _coded_6_bits(low, high, d, 3, out)


@device
def _header_k(block, scales, mins):
    """Q4_K, Q5_K: 6-bit scales times d, 6-bit mins times dmin."""
    _eight_coded(block + 64, block + 128, load_f16x16(block), scales)
    _eight_coded(block + 160, block + 224, neg(load_f16x16(block + 32)), mins)


@device
def _header_6(block, scales, mins):
    """Q6_K: signed 8-bit scales of 16 sub-groups, times d."""
    scale_i8_rows(block + 32, load_f16x16(block), scales)


# ---- scales of a matvec: rows of f32, read from memory where `header` wrote them, or computed from the header ----
#
# prepare(block, scales, mins); factors(block) -> (d, dmin), lanes of 16 rows; row(block, written, index, factor) -> f32


@device
def _nothing(block, scales, mins):
    pass


@device
def _no_factors(block):
    return zero_f32x16(), zero_f32x16()


@device
def _stored(block, written, i, factor):
    return load_f32x16(written + i * ROW)


@device
def _f16_row(block, written, i, factor):
    return load_f16x16(block + i * 32)


@device
def _factors_k(block):
    return load_f16x16(block), neg(load_f16x16(block + 32))


@device
def _coded(low, i, factor):
    """Group i of 8 groups of 6-bit codes, low 4 bits at `low`, top 2 behind, times a factor."""
    nibbles = bits_u8x16(load_u8x16(low + 16 * (i & 3)), i & 4, 15)
    top = bits_u8x16(load_u8x16(low + 64 + 4 * (i & 4)), 2 * (i & 3), 3)
    return mul(u8x16_to_f32(or_shifted_u8x16(nibbles, top, 4)), factor)


@device
def _scale_row_k(block, written, i, factor):
    return _coded(block + 64, i, factor)


@device
def _min_row_k(block, written, i, factor):
    return _coded(block + 160, i, factor)


@device
def _factors_6(block):
    return load_f16x16(block), zero_f32x16()


@device
def _scale_row_6(block, written, i, factor):
    return mul(load_i8x16(block + 32 + 16 * i), factor)


_F16_ROWS = (_nothing, _no_factors, _f16_row, _stored)
_K_ROWS = (_nothing, _factors_k, _scale_row_k, _min_row_k)
_ROWS = {
    "Q4_0": _F16_ROWS,
    "Q4_1": codes_simple.ROWS,
    "Q5_0": _F16_ROWS,
    "Q5_1": codes_simple.ROWS,
    "Q8_0": _F16_ROWS,
    "Q4_K": _K_ROWS,
    "Q5_K": _K_ROWS,
    "Q6_K": (_nothing, _factors_6, _scale_row_6, _stored),
}

# ---- codes: group address, i in 0..3 -> code lines 2i and 2i + 1 ----


@device
def _pair_4(codes, i):
    packed = load_u8x64(codes + i * 64)
    return bits_u8x64(packed, 0, 15), bits_u8x64(packed, 4, 15)


@device
def _pair_5(codes, i):
    low, high = _pair_4(codes, i)
    top = load_u8x64(codes + 256)
    low = or_shifted_u8x64(low, bits_u8x64(top, 2 * i, 1), 4)
    high = or_shifted_u8x64(high, bits_u8x64(top, 2 * i + 1, 1), 4)
    return low, high


@device
def _pair_6(codes, i):
    low, high = _pair_4(codes, i)
    top = load_u8x64(codes + 256 + (i >> 1) * 64)
    shift = (i & 1) * 4
    low = or_shifted_u8x64(low, bits_u8x64(top, shift, 3), 4)
    high = or_shifted_u8x64(high, bits_u8x64(top, shift + 2, 3), 4)
    return low, high


@device
def _pair_8(codes, i):
    return load_u8x64(codes + i * 128), load_u8x64(codes + i * 128 + 64)


_READERS = {
    "Q4_0": (_header_per_group, _pair_4),
    "Q4_1": (codes_simple.header_offsets, _pair_4),
    "Q5_0": (_header_per_group, _pair_5),
    "Q5_1": (codes_simple.header_offsets, _pair_5),
    "Q8_0": (_header_per_group, _pair_8),
    "Q4_K": (_header_k, _pair_4),
    "Q5_K": (_header_k, _pair_5),
    "Q6_K": (_header_6, _pair_6),
}
