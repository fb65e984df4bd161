"""Vector and tile types as Numba values.

A vector is a fixed number of lanes in one SSA value, a tile is an array of vectors that lives in registers. LLVM splits
a 16-lane vector into what the CPU has (one zmm, two ymm, four NEON registers), so kernels are written once.
"""

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

_ELEMENTS = {
    "i8": ir.IntType(8),
    "i16": ir.IntType(16),
    "i32": ir.IntType(32),
    "f32": ir.FloatType(),
}


class Vector(types.Type):
    """`lanes` values of `element` in one vector register (or several: LLVM decides)."""

    def __init__(self, element: str, lanes: int):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(_ELEMENTS[self.element], self.lanes)


class Tile(types.Type):
    """`count` vectors that stay in registers: T tokens x 16 output rows."""

    def __init__(self, vector: Vector, count: int):
        self.vector, self.count = vector, count
        super().__init__(name=f"{vector}t{count}")

    @property
    def llvm(self) -> ir.ArrayType:
        return ir.ArrayType(self.vector.llvm, self.count)


@register_model(Vector)
@register_model(Tile)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, fe_type.llvm)


u8x64 = Vector("i8", 64)
u8x16 = Vector("i8", 16)
i32x16 = Vector("i32", 16)
f32x16 = Vector("f32", 16)
