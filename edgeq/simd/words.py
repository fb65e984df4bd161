"""Operations on 16 lanes of 32-bit words: bits moved between layouts, nothing computed."""

from llvmlite import ir
from numba import types

from edgeq.simd import emit
from edgeq.simd.emit import I32, I32X16
from edgeq.simd.types import i32x16
from edgeq.simd.vector import operation

_NARROW = {1: ir.VectorType(ir.IntType(8), 16), 2: ir.VectorType(ir.IntType(16), 16)}


@operation(i32x16, types.int64)
def load_words(b, address):
    return emit.load(b, address, I32X16)


@operation(i32x16, types.int64)
def load_halfwords(b, address):
    return b.zext(emit.load(b, address, _NARROW[2]), I32X16)


@operation(i32x16, types.int64)
def load_bytes(b, address):
    return b.zext(emit.load(b, address, _NARROW[1]), I32X16)


@operation(types.void, types.int64, i32x16)
def store_words(b, address, value):
    emit.store(b, address, value)


@operation(types.void, types.int64, i32x16)
def store_halfwords(b, address, value):
    """The low halves."""
    emit.store(b, address, b.trunc(value, _NARROW[2]))


@operation(types.void, types.int64, i32x16)
def store_bytes(b, address, value):
    """The lowest bytes."""
    emit.store(b, address, b.trunc(value, _NARROW[1]))


@operation(i32x16, types.int64, types.int64)
def gather_words(b, address, stride):
    """Words `stride` bytes apart."""
    value = ir.Constant(I32X16, ir.Undefined)
    for lane in range(16):
        value = b.insert_element(value, emit.load(b, address, I32), I32(lane))
        address = b.add(address, stride)
    return value


@operation(types.void, types.int64, types.int64, i32x16)
def scatter_words(b, address, stride, value):
    """Words `stride` bytes apart."""
    for lane in range(16):
        emit.store(b, address, b.extract_element(value, I32(lane)))
        address = b.add(address, stride)


@operation(i32x16, types.int64)
def splat_word(b, value):
    """The low 32 bits in every lane."""
    return emit.splat(b, b.trunc(value, I32), 16)


@operation(i32x16, i32x16, i32x16, types.int64, types.int64)
def or_rotated(b, so_far, value, left, mask):
    """so_far | (value rotated by `left` bits) & mask."""
    count = emit.splat(b, b.trunc(left, I32), 16)
    turned = emit.call(b, "llvm.fshl.v16i32", I32X16, [value, value, count])
    return b.or_(so_far, b.and_(turned, emit.splat(b, b.trunc(mask, I32), 16)))


@operation(i32x16, i32x16, types.int64)
def flip_bits(b, value, bits):
    """value ^ bits."""
    return b.xor(value, emit.splat(b, b.trunc(bits, I32), 16))
