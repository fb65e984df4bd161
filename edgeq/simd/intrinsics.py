"""LLVM's intrinsics for single instructions: names and signatures, by width in bytes, and by LLVM's version.

LLVM takes what it is told: a call whose types are not those of its own declaration is refused when the module is
verified. Where versions differ, arguments are handed over as the same bits in the older types.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import llvmlite.binding as llvm
from llvmlite import ir

from edgeq.simd import emit
from edgeq.simd.emit import I8, I16, I32


@dataclass(frozen=True)
class Older:
    """The types of the arguments before LLVM `version`."""

    version: int
    arguments: tuple[ir.Type, ...]


@dataclass(frozen=True)
class Intrinsic:
    """One instruction: `intrinsic(b, *values)` emits a call of it."""

    name: str
    result: ir.Type
    arguments: tuple[ir.Type, ...] = ()
    older: Older | None = None

    def declared(self, version: int) -> tuple[ir.Type, ...]:
        """The types of the arguments as LLVM `version` declares them."""
        return self.older.arguments if self.older and version < self.older.version else self.arguments

    def __call__(self, b: ir.IRBuilder, *values: ir.Value) -> ir.Value:
        kinds = self.declared(llvm.llvm_version_info[0])
        return emit.call(b, self.name, self.result, _as_types(b, values, kinds))


def _as_types(b: ir.IRBuilder, values: Sequence[ir.Value], kinds: Sequence[ir.Type]) -> list[ir.Value]:
    return [b.bitcast(value, kind) for value, kind in zip(values, kinds, strict=True)]


def _bytes(count: int) -> ir.VectorType:
    return ir.VectorType(I8, count)


def _shorts(count: int) -> ir.VectorType:
    return ir.VectorType(I16, count)


def _ints(count: int) -> ir.VectorType:
    return ir.VectorType(I32, count)


# ---- x86 ----

# int16 pairs of products of unsigned and signed bytes, saturated
PMADDUBSW = {
    16: Intrinsic("llvm.x86.ssse3.pmadd.ub.sw.128", _shorts(8), (_bytes(16), _bytes(16))),
    32: Intrinsic("llvm.x86.avx2.pmadd.ub.sw", _shorts(16), (_bytes(32), _bytes(32))),
    64: Intrinsic("llvm.x86.avx512.pmaddubs.w.512", _shorts(32), (_bytes(64), _bytes(64))),
}
# int32 pairs of products of int16
PMADDWD = {
    32: Intrinsic("llvm.x86.avx2.pmadd.wd", _ints(8), (_shorts(16), _shorts(16))),
    64: Intrinsic("llvm.x86.avx512.pmaddw.d.512", _ints(16), (_shorts(32), _shorts(32))),
}
# int32 plus four products of unsigned and signed bytes
VPDPBUSD = {
    size: Intrinsic(
        f"llvm.x86.avx512.vpdpbusd.{8 * size}",
        _ints(size // 4),
        (_ints(size // 4), _bytes(size), _bytes(size)),
        Older(22, (_ints(size // 4),) * 3),
    )
    for size in (32, 64)
}
# bytes of each 16 by index
PSHUFB = {
    32: Intrinsic("llvm.x86.avx2.pshuf.b", _bytes(32), (_bytes(32), _bytes(32))),
    64: Intrinsic("llvm.x86.avx512.pshuf.b.512", _bytes(64), (_bytes(64), _bytes(64))),
}
# bytes with the signs of others
PSIGNB = {32: Intrinsic("llvm.x86.avx2.psign.b", _bytes(32), (_bytes(32), _bytes(32)))}
PAUSE = Intrinsic("llvm.x86.sse2.pause", ir.VoidType())

# ---- AArch64, whose registers are 16 bytes ----

SMULL = Intrinsic("llvm.aarch64.neon.smull.v8i16", _shorts(8), (_bytes(8), _bytes(8)))
SADDLP = Intrinsic("llvm.aarch64.neon.saddlp.v4i32.v8i16", _ints(4), (_shorts(8),))
ADDP_SHORTS = Intrinsic("llvm.aarch64.neon.addp.v8i16", _shorts(8), (_shorts(8), _shorts(8)))
ADDP_INTS = Intrinsic("llvm.aarch64.neon.addp.v4i32", _ints(4), (_ints(4), _ints(4)))
SDOT, USDOT, USMMLA = (
    Intrinsic(f"llvm.aarch64.neon.{name}.v4i32.v16i8", _ints(4), (_ints(4), _bytes(16), _bytes(16)))
    for name in ("sdot", "usdot", "usmmla")
)
TBL1 = Intrinsic("llvm.aarch64.neon.tbl1.v16i8", _bytes(16), (_bytes(16),) * 2)
TBL2 = Intrinsic("llvm.aarch64.neon.tbl2.v16i8", _bytes(16), (_bytes(16),) * 3)
SRI = Intrinsic("llvm.aarch64.neon.vsri.v16i8", _bytes(16), (_bytes(16), _bytes(16), I32))
ISB = Intrinsic("llvm.aarch64.isb", ir.VoidType(), (I32,))
