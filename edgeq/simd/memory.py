"""Scalars at addresses: `load_f32(address)`, `store_u8(address, value)`, and scratch memory on the stack.

Kernels take addresses, not arrays: they are C-ABI functions that know no Python object. Loads and stores assume no
alignment beyond one byte.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.emit import I64

# In memory, in Numba, and how one is made of the other
_SCALARS = {
    "u8": (emit.I8, types.int64, ir.IRBuilder.zext, ir.IRBuilder.trunc),
    "i32": (emit.I32, types.int64, ir.IRBuilder.sext, ir.IRBuilder.trunc),
    "i64": (I64, types.int64, None, None),
    "f32": (emit.F32, types.float32, None, None),
    "f16": (ir.HalfType(), types.float32, ir.IRBuilder.fpext, ir.IRBuilder.fptrunc),
}


def _address(builder, value, element):
    return builder.inttoptr(value, element.as_pointer())


def _make_load(name):
    element, result, widen, _ = _SCALARS[name]

    @intrinsic
    def load(typingctx, address):
        def generate(context, builder, signature, args):
            value = builder.load(_address(builder, args[0], element))
            value.align = 1
            return value if widen is None else widen(builder, value, I64 if result is types.int64 else emit.F32)

        return result(types.int64), generate

    return load


def _make_store(name):
    element, argument, _, narrow = _SCALARS[name]

    @intrinsic
    def store(typingctx, address, value):
        def generate(context, builder, signature, args):
            value = args[1] if narrow is None else narrow(builder, args[1], element)
            builder.store(value, _address(builder, args[0], element)).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, argument), generate

    return store


load_u8, load_i32, load_i64 = _make_load("u8"), _make_load("i32"), _make_load("i64")
load_f32, load_f16 = _make_load("f32"), _make_load("f16")
store_u8, store_i32, store_i64 = _make_store("u8"), _make_store("i32"), _make_store("i64")
store_f32, store_f16 = _make_store("f32"), _make_store("f16")


@intrinsic
def stack(typingctx, nbytes):
    """Address of `nbytes` (a literal) bytes of 64-byte aligned memory that live until the kernel returns."""
    if not isinstance(nbytes, types.IntegerLiteral):
        return None
    size = nbytes.literal_value

    def generate(context, builder, signature, args):
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(ir.IntType(8), size))
            memory.align = 64
        return builder.ptrtoint(memory, I64)

    return types.int64(nbytes), generate


@intrinsic
def bits_f32(typingctx, value):
    """The f32 whose bit pattern is the low 32 bits of an int64 (how kernel arguments carry floats)."""

    def generate(context, builder, signature, args):
        return builder.bitcast(builder.trunc(args[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.int64), generate


@intrinsic
def hide(typingctx, value):
    """The same int64, unknown to LLVM: it makes no copy of a loop for each case of it."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(I64, [I64])
        return builder.call(ir.InlineAsm(kind, "", "=r,0", side_effect=True), args)

    return types.int64(types.int64), generate


def _make_prefetch(level: int):
    @intrinsic
    def prefetch(typingctx, address):
        """Ask for the cache line at `address`, no nearer than the cache of this level; any address is allowed."""

        def generate(context, builder, signature, args):
            emit.prefetch(builder, args[0], level)
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return prefetch


prefetch, prefetch_l2 = _make_prefetch(1), _make_prefetch(2)
