"""Numbers out of the bytes that hold them in pieces: code lines, and 6-bit scales.

AArch64 shifts a byte into another and keeps the rest of that in one instruction (`sri`); what it shifts out at the top
needs no mask. Other CPUs mask, shift and combine.
"""

from llvmlite import ir
from numba import types

from edgeq.simd import emit
from edgeq.simd.emit import I8, I16, I32, U8X16, U8X64
from edgeq.simd.types import u8x64
from edgeq.simd.vector import operation

# Of a fourth 6-bit number at the tops of three others: the number of the byte, the lowest bit there, and how many bits
_FOURTH = ((0, 6, 2), (1, 6, 2), (2, 6, 2))


def _mask(b, value, mask: int):
    return b.and_(value, emit.splat_constant(value.type, mask))


def _shifted(b, value, left: int):
    """Bytes shifted left, or right by -left; on x86, which has no shift of bytes, neighbours' bits come in."""
    if not left:
        return value
    kind = value.type if emit.is_aarch64(b) else ir.VectorType(I16, value.type.count // 2)
    moved = (b.shl if left > 0 else b.lshr)(b.bitcast(value, kind), emit.splat_constant(kind, abs(left)))
    return b.bitcast(moved, value.type)


def _insert_right(b, kept, value, count: int):
    """The high `count` bits of `kept` above value >> count, on AArch64."""
    registers = [
        emit.call(
            b,
            "llvm.aarch64.neon.vsri.v16i8",
            U8X16,
            [*(emit.shuffle(b, each, each, range(first, first + 16)) for each in (kept, value)), I32(count)],
        )
        for first in range(0, value.type.count, 16)
    ]
    while len(registers) > 1:
        registers = [emit.concat(b, *registers[i : i + 2]) for i in range(0, len(registers), 2)]
    return registers[0]


def _together(b, packed, pieces):
    """Numbers whose `pieces`, those of the highest bits first, lie in the bytes of `packed`."""
    left, value = sum(count for _, _, count in pieces), None
    for source, (_, at, count) in zip(packed, pieces, strict=True):
        left -= count
        if value is not None and emit.is_aarch64(b):
            value = _insert_right(b, value, _shifted(b, source, 8 - at - count), 8 - left - count)
            continue
        part = _shifted(b, source, left - at)
        if not emit.is_aarch64(b) or at + count < 8:
            part = _mask(b, part, ((1 << count) - 1) << left)
        value = part if value is None else b.or_(value, part)
    return value


def make_line(pieces):
    """`line(group)`: a code line of the group at an address, put together from pieces of its packed lines: each is the
    number of a packed line, the lowest bit there, and how many bits."""

    @operation(u8x64, types.int64)
    def line(b, group):
        return _together(b, [emit.load(b, emit.offset(b, group, 64 * at), U8X64, 32) for at, _, _ in pieces], pieces)

    return line


def make_six_bits(count: int, minus: int = 0):
    """`six_bits(address, out)`: `count` 6-bit numbers of 16 rows, less `minus`, as bytes [count][16].

    Three quarters of them are the low bits of bytes, the last quarter lies at the top of these.
    """
    size = 4 * count
    quarter = ir.VectorType(I8, size)

    @operation(types.void, types.int64, types.int64)
    def six_bits(b, address, out):
        packed = [emit.load(b, emit.offset(b, address, size * i), quarter, 32) for i in range(3)]
        for i, numbers in enumerate([*(_mask(b, each, 63) for each in packed), _together(b, packed, _FOURTH)]):
            if minus:
                numbers = b.sub(numbers, emit.splat_constant(quarter, minus))
            emit.store(b, emit.offset(b, out, size * i), numbers, 32)

    return six_bits
