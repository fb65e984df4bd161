"""Numbers out of the bytes that hold them in pieces: code lines, and 6-bit scales."""

from llvmlite import ir
from numba import types

from edgeq.simd import emit
from edgeq.simd.cpu_kind import architecture
from edgeq.simd.emit import I8, U8X64
from edgeq.simd.types import u8x64
from edgeq.simd.vector import operation

# Of a fourth 6-bit number at the tops of three others: the number of the byte, the lowest bit there, and how many bits
_FOURTH = ((0, 6, 2), (1, 6, 2), (2, 6, 2))


def _mask(b, value, mask: int):
    return b.and_(value, emit.splat_constant(value.type, mask))


def _together(b, packed, pieces):
    """Numbers whose `pieces`, those of the highest bits first, lie in the bytes of `packed`."""
    cpu, left, value = architecture(b), sum(count for _, _, count in pieces), None
    for source, (_, at, count) in zip(packed, pieces, strict=True):
        left -= count
        value = cpu.piece(b, value, source, at, count, left)
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
