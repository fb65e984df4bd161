"""What bodies of AArch64 share. A register holds 4 rows x 4 columns of a code line."""

from llvmlite import ir

from edgeq.simd import emit, intrinsics
from edgeq.simd.body import Body
from edgeq.simd.emit import I32, I64, U8X16


class Arm(Body):
    """32 registers of 16 bytes; `fmla` adds in place."""

    pins_halves = True
    reloads_rows = True

    def lookup(self, b, table, codes):
        return emit.join(b, [intrinsics.TBL1(b, table, part) for part in emit.quarters(b, codes)])


def signed(b, codes, code_bits):
    """Codes that instructions on signed bytes take: the top bit of 8-bit codes is flipped, which takes 128 away."""
    return b.xor(codes, emit.splat_constant(U8X16, 128)) if code_bits == 8 else codes


def splat_by_copies(b, scalar, near):
    """`scalar` in 16 lanes, by an instruction for every register that takes no vector pipe.

    The address `near`, which changes with every group, keeps LLVM from making them once, and copying after.
    """
    if near is None:
        return emit.join(b, [emit.splat(b, emit.conceal(b, scalar, "r"), 4)] * 4)
    kind = ir.FunctionType(I32, [I32, I64, I32])
    copy = ir.InlineAsm(kind, "", "=r,0,r,i", side_effect=False)
    copies = [b.call(copy, [scalar, near, I32(q)], attrs=("readnone", "nounwind")) for q in range(4)]
    return emit.join(b, [emit.splat(b, value, 4) for value in copies])
