"""What a thread team needs: atomics, pause, sleep, and calls through addresses."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.cpu_kind import architecture
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
def atomic_exchange_if(typingctx, address, expected, value):
    """Replace the int64 at `address` if it is `expected`; returns what was there."""

    def generate(context, b, signature, args):
        result = b.cmpxchg(_pointer(b, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return b.extract_value(result, 0)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def atomic_load(typingctx, address):
    def generate(context, b, signature, args):
        return b.load_atomic(_pointer(b, args[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin loop; nothing on CPUs whose hint is not known here."""

    def generate(context, b, signature, args):
        architecture(b).pause(b)
        return context.get_dummy_value()

    return types.void(), generate


# What Linux's futex is asked for: of this process's threads alone
_WAIT, _WAKE = 128, 129


def _has_futex(b):
    return architecture(b).futex is not None and "linux" in b.module.triple


def _futex(b, address, operation, value, timeout):
    emit.call(b, "syscall", I64, [I64(architecture(b).futex), address, I64(operation), value, timeout])


@intrinsic
def can_sleep(typingctx):
    """1 if `sleep_while` sleeps."""
    return types.int64(), lambda context, b, signature, args: I64(int(_has_futex(b)))


@intrinsic
def sleep_while(typingctx, address, value, timeout):
    """Sleep while the lower half of the int64 at `address` is that of `value`, until `wake`, for no reason, or until a
    time is over: seconds and nanoseconds, two int64, at the address `timeout` if that is not 0.

    On systems other than Linux another thread may run on this core (POSIX's `sched_yield`), and that is all.
    """

    def generate(context, b, signature, args):
        if _has_futex(b):
            _futex(b, args[0], _WAIT, args[1], args[2])
        else:
            emit.call(b, "SwitchToThread" if "windows" in b.module.triple else "sched_yield", emit.I32, [])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def wake(typingctx, address):
    """Wake the threads that sleep at `address`."""

    def generate(context, b, signature, args):
        if _has_futex(b):
            _futex(b, args[0], _WAKE, I64((1 << 31) - 1), I64(0))
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def call_kernel(typingctx, function, args, thread, n_threads):
    """Call the C function `void(int64, int64, int64)` at an address."""

    def generate(context, b, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 3)
        b.call(b.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate
