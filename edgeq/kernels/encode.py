"""Encode f32 weights into panels: the fast twin of `edgeq.blocks.reference.encode`, giving the same bytes.

A lane is one of a panel's 16 rows: every step of the search is a vector operation on one column of the panel, in the
order in which the NumPy reference does it, none of them fused. One super-block is searched at a time, from a copy of
its weights on the stack, f32 [256 columns][16 rows]; where a row has one scale, a whole panel from scratch memory.
"""

from edgeq.blocks.packing import places
from edgeq.blocks.table import BlockType, block_type
from edgeq.kernels import encode_mins, encode_offsets, encode_symmetric
from edgeq.kernels.argument_blocks import Encode
from edgeq.kernels.search import ROW
from edgeq.simd.argument_words import words_of
from edgeq.simd.choice import interleave_4, store_line, store_u8x16, to_u8x16
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_f32, stack, store_f32
from edgeq.simd.vector import (
    bits_u8x16,
    bits_u8x64,
    device,
    load_f32x16,
    load_u8x16,
    or_shifted_u8x16,
    or_shifted_u8x64,
    select_below,
    splat_f32,
    store_f16x16,
    store_f32x16,
    zero_f32x16,
)

COLUMNS = 256  # of a full super-block
X_BYTES, CODES_BYTES, WORK_BYTES = COLUMNS * ROW, COLUMNS * 16, 64 * ROW
GROUP_CODES = 32 * 16  # bytes of the codes of a group


def make(variant: str, isa: Isa):
    """The kernel that encodes into block type `variant`, or `NAME-weighted`, to which columns are of different
    importance. Threads take contiguous runs of panels.

    Rows past the end become zero bytes. Weights must be finite (`edgeq.blocks.reference.encode`).
    """
    name, _, weighted = variant.partition("-")
    bt = block_type(name)
    if bt.per_row:
        return _make_rows(bt, _at_column if weighted else _nowhere)
    super_block_bytes, header_bytes, group_bytes = bt.super_block_offset(1), bt.header_bytes, bt.group_bytes
    search, write_header = searches(bt)
    arguments, pack_group = words_of(Encode), make_pack(bt)
    importance_at = _at_column if weighted else _nowhere

    def kernel(args, thread, n_threads):
        source, rows, cols, target, first, last, importance, _ = arguments(args)
        x, codes, work = stack(X_BYTES), stack(CODES_BYTES), stack(WORK_BYTES)
        full = cols // COLUMNS
        blocks = (cols + COLUMNS - 1) // COLUMNS
        panel_bytes = blocks * header_bytes + cols // 32 * group_bytes
        for panel in range(
            first + (last - first) * thread // n_threads, first + (last - first) * (thread + 1) // n_threads
        ):
            valid = rows - panel * 16 if rows - panel * 16 < 16 else 16
            present = select_below(valid, splat_f32(1.0), zero_f32x16())
            for block in range(blocks):
                groups = 8 if block < full else (cols - full * COLUMNS) // 32
                transpose(source + (panel * 16 * cols + block * COLUMNS) * 4, cols * 4, valid, groups * 32, x)
                for row in range(64):
                    store_f32x16(work + row * ROW, zero_f32x16())
                d, dmin = search(x, importance_at(importance, block * COLUMNS), groups, work, codes, present)
                out = target + panel * panel_bytes + block * super_block_bytes
                write_header(out, work, d, dmin)
                for g in range(groups):
                    pack_group(codes + g * 512, out + header_bytes + g * group_bytes)

    return kernel


def _make_rows(bt: BlockType, importance_at):
    """The kernel of types with one scale for a row."""
    row, arguments, pack_group = encode_symmetric.make_row(bt), words_of(Encode), make_pack(bt)
    scale_of, codes_of = row.scale, row.codes
    header_bytes, group_bytes = bt.header_bytes, bt.group_bytes

    def kernel(args, thread, n_threads):
        source, rows, cols, target, first, last, importance, scratch = arguments(args)
        x, codes = scratch + thread * cols * ROW, stack(GROUP_CODES)
        for panel in range(
            first + (last - first) * thread // n_threads, first + (last - first) * (thread + 1) // n_threads
        ):
            valid = rows - panel * 16 if rows - panel * 16 < 16 else 16
            present = select_below(valid, splat_f32(1.0), zero_f32x16())
            transpose(source + panel * 16 * cols * 4, cols * 4, valid, cols, x)
            scale = scale_of(x, importance_at(importance, 0), cols)
            out = target + panel * (header_bytes + cols // 32 * group_bytes)
            store_f32x16(out, scale)
            for g in range(cols // 32):
                codes_of(x + g * 32 * ROW, scale, present, codes)
                pack_group(codes, out + header_bytes + g * group_bytes)

    return kernel


@device
def _at_column(importance, column):
    return importance + column * 4


@device
def _nowhere(importance, column):
    return None


def searches(bt: BlockType):
    """The search of a type, and how its header is written."""
    if bt.has_mins and bt.scales == "f16":
        return encode_offsets.make(bt.levels), _header_offsets
    if bt.scales == "s6":
        factors = COLUMNS // bt.scale_group

        @device
        def write_header(out, work, d, dmin):
            store_f16x16(out, d)
            _six_bits(out + 32, work + encode_symmetric.SCALES, factors)

        return encode_symmetric.make(bt), write_header
    search = encode_mins.make(bt) if bt.has_mins else encode_symmetric.make(bt)
    return search, _make_header_f16(COLUMNS // bt.scale_group) if bt.scales == "f16" else _HEADERS[bt.scales]


@device
def transpose(source, stride, valid, columns, x):
    """`valid` rows of f32 to [columns][16], zero in the other rows."""
    for row in range(16):
        if row < valid:
            for k in range(columns):
                store_f32(x + k * ROW + row * 4, load_f32(source + row * stride + k * 4))
        else:
            for k in range(columns):
                store_f32(x + k * ROW + row * 4, 0.0)


# ---- headers: from the work space's rows of factors ----


def _make_header_f16(groups: int):
    @device
    def header_f16(out, work, d, dmin):
        for g in range(groups):
            store_f16x16(out + g * 32, load_f32x16(work + g * ROW))

    return header_f16


@device
def _header_offsets(out, work, d, dmin):
    for g in range(8):
        store_f16x16(out + g * 32, load_f32x16(work + encode_offsets.SCALES + g * ROW))
        store_f16x16(out + 256 + g * 32, load_f32x16(work + encode_offsets.MINS + g * ROW))


@device
def _header_f32(out, work, d, dmin):
    for g in range(4):
        store_f32x16(out + g * ROW, load_f32x16(work + g * ROW))


@device
def _header_e8m0(out, work, d, dmin):
    for g in range(8):
        store_u8x16(out + g * 16, to_u8x16(load_f32x16(work + g * ROW)))


@device
def _header_i8(out, work, d, dmin):
    store_f16x16(out, d)
    for g in range(16):
        store_u8x16(out + 32 + g * 16, to_u8x16(load_f32x16(work + g * ROW)))


@device
def _six_bits(out, rows, count):
    """Rows of factors as bytes whose low 6 bits are three quarters of them; the last quarter lies at the tops."""
    quarter = count // 4
    for h in range(quarter):
        last = to_u8x16(load_f32x16(rows + (3 * quarter + h) * ROW))
        for i in range(3):
            factor = to_u8x16(load_f32x16(rows + (i * quarter + h) * ROW))
            packed = or_shifted_u8x16(factor, bits_u8x16(last, 4 - 2 * i, 3), 6)
            store_u8x16(out + (i * quarter + h) * 16, packed)


@device
def _header_u6(out, work, d, dmin):
    store_f16x16(out, d)
    store_f16x16(out + 32, dmin)
    _six_bits(out + 64, work + encode_mins.SCALES, 8)
    _six_bits(out + 160, work + encode_mins.MINS, 8)


@device
def _header_u4(out, work, d, dmin):
    store_f16x16(out, d)
    store_f16x16(out + 32, dmin)
    for t in range(16):
        scale = to_u8x16(load_f32x16(work + encode_mins.SCALES + t * ROW))
        minimum = to_u8x16(load_f32x16(work + encode_mins.MINS + t * ROW))
        store_u8x16(out + 64 + t * 16, or_shifted_u8x16(scale, minimum, 4))


_HEADERS = {
    "e8m0": _header_e8m0,
    "f32": _header_f32,
    "i8": _header_i8,
    "u6": _header_u6,
    "u4": _header_u4,
}


# ---- codes ----


@device
def _line(codes, j):
    """Code line j of a group: columns 4 j to 4 j + 3 of its codes u8 [32][16]."""
    column = codes + j * 64
    return interleave_4(
        load_u8x16(column), load_u8x16(column + 16), load_u8x16(column + 32), load_u8x16(column + 48)
    )  # fmt: skip


def make_pack(bt: BlockType):
    """`pack_group(codes, out)`: the packed lines of a group."""
    bits, pieces = bt.code_bits, tuple(places(bt.code_bits))

    @device
    def pack_group(codes, out):
        for h in range(bits):
            packed = bits_u8x64(_line(codes, h), 0, 0)  # zero
            for line, packed_line, low, at, count in pieces:
                if packed_line == h:
                    packed = or_shifted_u8x64(packed, bits_u8x64(_line(codes, line), low, (1 << count) - 1), at)
            store_line(out + h * 64, packed)

    return pack_group
