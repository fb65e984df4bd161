"""Numbers out of the bytes that hold them in pieces: code lines, and 6-bit scales.

AArch64 shifts a byte into another and keeps the rest of that in one instruction (`sli`, `sri`); what it shifts out at
the top needs no mask. Other CPUs mask, shift and combine.
"""

from llvmlite import ir
from numba.core import types

from edgeq.simd import emit
from edgeq.simd.emit import I16, I32, I32X16, I64, U8X16, U8X64
from edgeq.simd.types import u8x64
from edgeq.simd.vector import byte_shift, operation, or_shifted

_WORDS = ir.VectorType(I16, 32)


def _mask(b, value, mask: int):
    return b.and_(value, emit.splat_constant(value.type, mask))


def shifted(b, value, left: int):
    """Bytes shifted left, or right by -left; on x86, which has no shift of bytes, neighbours' bits come in."""
    kind = U8X64 if emit.is_aarch64(b) else _WORDS
    value = b.bitcast(value, kind)
    if left:
        value = (b.shl if left > 0 else b.lshr)(value, emit.splat_constant(kind, abs(left)))
    return b.bitcast(value, U8X64)


def insert_left(b, kept, value, count: int):
    """The low `count` bits of `kept` below value << count, on AArch64."""
    return _insert(b, "vsli", kept, value, count)


def insert_right(b, kept, value, count: int):
    """The high `count` bits of `kept` above value >> count, on AArch64."""
    return _insert(b, "vsri", kept, value, count)


def _insert(b, name: str, kept, value, count: int):
    parts = zip(emit.quarters(b, kept), emit.quarters(b, value), strict=True)
    name = f"llvm.aarch64.neon.{name}.v16i8"
    return emit.join(b, [emit.call(b, name, U8X16, [x, y, I32(count)]) for x, y in parts])


def make_line(pieces):
    """`line(group)`: a code line of the group at an address, put together from pieces of its packed lines: each is the
    number of a packed line, the lowest bit there, and how many bits; those of the highest bits first.

    Where there are several, the first reaches up to bit 7.
    """
    bits = sum(count for _, _, count in pieces)

    def inserted(b, packed):
        """On AArch64: the first piece shifted down to its place, and each one after it inserted below."""
        (_, at, count), *others = pieces
        value, left = shifted(b, packed[0], -(at + count - bits)), bits - count
        if at + count < 8:
            value = _mask(b, value, (1 << bits) - 1)
        for source, (_, at, count) in zip(packed[1:], others, strict=True):
            value = insert_right(b, value, shifted(b, source, 8 - at - count), 8 - left)
            left -= count
        return value

    def combined(b, packed):
        value, left = None, bits
        for source, (_, at, count) in zip(packed, pieces, strict=True):
            left -= count
            part = _mask(b, shifted(b, source, left - at), ((1 << count) - 1) << left)
            value = part if value is None else b.or_(value, part)
        return value

    @operation(u8x64, types.int64)
    def line(b, group):
        packed = [emit.load(b, emit.offset(b, group, 64 * at), U8X64, 32) for at, _, _ in pieces]
        return inserted(b, packed) if emit.is_aarch64(b) else combined(b, packed)

    return line


def _bit_pairs(b, value):
    """Four rows from 16 bytes: row i is bits 2i and 2i + 1 of each."""
    rows = b.bitcast(emit.join(b, [value] * 4), I32X16)  # x86 has no shift of bytes; of words, by lane
    shifts = ir.Constant(I32X16, [2 * (i // 4) for i in range(16)])
    return _mask(b, b.bitcast(b.lshr(rows, shifts), U8X64), 3)


def _rows_of_pairs(b, value, left: int):
    """Four rows from 16 bytes: row i is bits 2i and 2i + 1 of each, shifted left; no other bits."""
    rows = []
    for i in range(4):
        moved = left - 2 * i
        if moved:
            count = emit.splat_constant(U8X16, abs(moved))
            row = b.shl(value, count) if moved > 0 else b.lshr(value, count)
        else:
            row = value
        rows.append(row if moved == -6 else _mask(b, row, 3 << left))
    return emit.join(b, rows)


@operation(u8x64, u8x64, types.int64)
def low_six_bits(b, nibbles, address):
    """Four rows of numbers: the low 4 bits of `nibbles`, above them bits 2i and 2i + 1 of the 16 bytes at `address`."""
    top = emit.load(b, address, U8X16, 16)
    if emit.is_aarch64(b):
        return insert_left(b, nibbles, _rows_of_pairs(b, top, 0), 4)
    return or_shifted(b, _mask(b, nibbles, 15), _bit_pairs(b, top), I64(4))


@operation(u8x64, u8x64, types.int64)
def high_six_bits(b, nibbles, address):
    """As `low_six_bits`, of the high 4 bits of `nibbles`."""
    top = emit.load(b, address, U8X16, 16)
    if emit.is_aarch64(b):
        return insert_right(b, _rows_of_pairs(b, top, 4), nibbles, 4)
    return or_shifted(b, _mask(b, byte_shift(b, nibbles, I64(4)), 15), _bit_pairs(b, top), I64(4))
