"""What bodies of x86 share: bytes looked up by `pshufb`, which takes them from each 16 of a register."""

from edgeq.simd import emit, intrinsics


def lookup(b, table, codes, nbytes: int):
    """The byte of `table` (u8x16 constant) for each of 64 bytes 0 to 15, by registers of `nbytes`."""
    if nbytes == 64:
        return intrinsics.PSHUFB[64](b, emit.join(b, [table] * 4), codes)
    tables = emit.concat(b, table, table)
    return emit.concat(b, *[intrinsics.PSHUFB[32](b, tables, emit.half(b, codes, part)) for part in range(2)])
