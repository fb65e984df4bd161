"""What architectures do their own way in the operations that are written once: one class each, and the choice of one.

The defaults are plain vector code that LLVM lowers on any CPU. Only single operations are chosen here; an instruction
set's dot products are its body's (`body`), and the names of its instructions are in `intrinsics`.
"""

from llvmlite import ir

from edgeq.simd import emit, intrinsics, machine
from edgeq.simd.emit import F32X16, I16, I32, I32X16, U8X16
from edgeq.simd.target import machine_has


class Architecture:
    """A CPU of which nothing is known."""

    futex: int | None = None
    """Linux's number of the system call `futex`, if it is known."""

    def pause(self, b: ir.IRBuilder) -> None:
        """Tell the core that this is a spin loop."""

    def shift_type(self, vector: ir.VectorType) -> ir.VectorType:
        """The lanes in which a vector of bytes is shifted.

        Those of 16 bits, as x86 shifts no bytes: bits of the neighbour byte come in, and are the caller's to mask.
        """
        return ir.VectorType(I16, vector.count // 2)

    def shift_bytes(self, b: ir.IRBuilder, value: ir.Value, left: int) -> ir.Value:
        """Bytes shifted left, or right by -left; neighbours' bits may come in, see `shift_type`."""
        if not left:
            return value
        kind = self.shift_type(value.type)
        moved = (b.shl if left > 0 else b.lshr)(b.bitcast(value, kind), emit.splat_constant(kind, abs(left)))
        return b.bitcast(moved, value.type)

    def piece(self, b: ir.IRBuilder, so_far: ir.Value | None, source: ir.Value, at: int, count: int, left: int):
        """`so_far`, or nothing, with `count` bits of every byte of `source`, whose lowest is `at`, put at `left`.

        Pieces come from the highest bits down to bit 0: what lies below `left` is not there yet.
        """
        mask = ((1 << count) - 1) << left
        part = self.shift_bytes(b, source, left - at)
        part = b.and_(part, emit.splat_constant(part.type, mask))
        return part if so_far is None else b.or_(so_far, part)

    def bytes_to_f32(self, b: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """16 bytes as f32: via signed i32, as every byte fits, and x86 before AVX-512 has no unsigned conversion."""
        return b.sitofp(b.zext(value, I32X16), F32X16)

    def signed_bytes_to_f32(self, b: ir.IRBuilder, value: ir.Value) -> ir.Value:
        """16 signed bytes as f32."""
        return b.sitofp(b.sext(value, I32X16), F32X16)


class X86(Architecture):
    futex = 202

    def pause(self, b):
        intrinsics.PAUSE(b)


class AArch64(Architecture):
    """Shifts bytes, and into one another (`sri`); looks bytes up in two registers at once."""

    futex = 98

    def pause(self, b):
        """`yield` does nothing on most cores; `isb` empties the pipeline, some tens of cycles."""
        intrinsics.ISB(b, I32(15))

    def shift_type(self, vector):
        return vector

    def piece(self, b, so_far, source, at, count, left):
        """What is shifted out at the top needs no mask; a later piece is shifted into what is there."""
        if so_far is None and at + count == 8:
            return self.shift_bytes(b, source, left - at)
        if so_far is None:
            return super().piece(b, None, source, at, count, left)
        return _insert_right(b, so_far, self.shift_bytes(b, source, 8 - at - count), 8 - left - count)

    def bytes_to_f32(self, b, value):
        if machine_has("dotprod"):
            return _bytes_below_exponent(b, value, 0)
        shorts = ir.VectorType(I16, 8)
        halves = [emit.conceal(b, b.zext(emit.half(b, value, part), shorts), "w") for part in range(2)]
        return b.uitofp(b.zext(emit.concat(b, *halves), I32X16), F32X16)

    def signed_bytes_to_f32(self, b, value):
        if machine_has("dotprod"):
            return _bytes_below_exponent(b, b.xor(value, emit.splat_constant(U8X16, 128)), 128)
        return super().signed_bytes_to_f32(b, value)


_TABLE = {"x86_64": X86(), "aarch64": AArch64()}


def architecture(b: ir.IRBuilder) -> Architecture:
    """That of the code being built."""
    return _TABLE.get(machine.architecture(b.module.triple), Architecture())


def _insert_right(b, kept, value, count: int):
    """The high `count` bits of `kept` above value >> count."""
    registers = [
        intrinsics.SRI(
            b, *(emit.shuffle(b, each, each, range(first, first + 16)) for each in (kept, value)), I32(count)
        )
        for first in range(0, value.type.count, 16)
    ]
    while len(registers) > 1:
        registers = [emit.concat(b, *registers[i : i + 2]) for i in range(0, len(registers), 2)]
    return registers[0]


def _bytes_below_exponent(b, value, zero):
    """Bytes - zero as f32: put below the bits of 2**23 by one table lookup per register, and 2**23 + zero subtracted.

    Cores that have `sdot` look a byte up in two registers at once, and convert four integers in four cycles.
    """
    exponent = ir.Constant(U8X16, [0x4B] + [0] * 15)
    registers = []
    for first in range(0, 16, 4):
        table = ir.Constant(U8X16, [at for row in range(first, first + 4) for at in (row, 17, 17, 16)])
        registers.append(intrinsics.TBL2(b, value, exponent, table))
    bits = b.bitcast(emit.join(b, registers), F32X16)
    return b.fsub(bits, emit.splat_constant(F32X16, 8388608.0 + zero))
