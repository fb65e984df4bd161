"""What a thread team needs: atomics, pause, yield, and calls through addresses."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.emit import I64


def _pointer(b, address):
    return b.inttoptr(address, I64.as_pointer())


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to the int64 at `address`; returns what was there."""

    def generate(context, b, signature, args):
        return b.atomic_rmw("add", _pointer(b, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_exchange(typingctx, address, value):
    """Replace the int64 at `address`; returns what was there."""

    def generate(context, b, signature, args):
        return b.atomic_rmw("xchg", _pointer(b, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_load(typingctx, address):
    def generate(context, b, signature, args):
        return b.load_atomic(_pointer(b, args[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin loop; nothing on CPUs whose hint is not known here."""

    def generate(context, b, signature, args):
        if emit.is_aarch64(b):
            # `yield` does nothing on most cores; `isb` empties the pipeline, some tens of cycles
            emit.call(b, "llvm.aarch64.isb", ir.VoidType(), [emit.I32(15)])
        elif b.module.triple.startswith(("x86_64", "i686", "amd64")):
            emit.call(b, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def yield_core(typingctx):
    """Let another thread run on this core (POSIX `sched_yield`)."""

    def generate(context, b, signature, args):
        emit.call(b, "sched_yield", emit.I32, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def call_kernel(typingctx, function, args, thread, n_threads):
    """Call the C function `void(int64, int64, int64)` at an address."""

    def generate(context, b, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 3)
        b.call(b.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate
