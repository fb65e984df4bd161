"""Operations on 16-lane vectors that LLVM lowers well on every CPU: loads, arithmetic, reductions."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.cpu_kind import architecture
from edgeq.simd.emit import F32X16, I8, I16, I32, I32X16, I64
from edgeq.simd.target import device as device
from edgeq.simd.types import f32x16, i32x16, u8x16, u8x64


def operation(result, *arguments):
    """Make `generate(builder, *llvm values) -> llvm value` an operation on Numba values of these types."""

    def wrap(generate):
        def typing(typingctx, *args):
            def codegen(context, builder, signature, values):
                value = generate(builder, *values)
                return context.get_dummy_value() if result is types.void else value

            return result(*arguments), codegen

        # intrinsic() reads the number of arguments from the signature
        names = ", ".join(f"a{i}" for i in range(len(arguments)))
        scope = {"typing": typing}
        exec(f"def {generate.__name__}(typingctx, {names}):\n    return typing(typingctx, {names})", scope)
        function = scope[generate.__name__]
        function.__doc__ = generate.__doc__
        return intrinsic(function)

    return wrap


# ---- loads and stores ----


@operation(f32x16, types.int64)
def load_f32x16(b, address):
    return emit.load(b, address, F32X16, 4)


@operation(types.void, types.int64, f32x16)
def store_f32x16(b, address, value):
    emit.store(b, address, value, 4)


@operation(f32x16, types.int64)
def load_f16x16(b, address):
    """16 f16 widened to f32."""
    return b.fpext(emit.load(b, address, ir.VectorType(ir.HalfType(), 16), 2), F32X16)


@operation(types.void, types.int64, f32x16)
def store_f16x16(b, address, value):
    """16 f32 rounded to nearest f16."""
    emit.store(b, address, b.fptrunc(value, ir.VectorType(ir.HalfType(), 16)), 2)


@operation(f32x16, types.int64)
def load_bf16x16(b, address):
    """16 bf16 widened to f32: the upper half of its bits."""
    wide = b.zext(emit.load(b, address, ir.VectorType(I16, 16), 2), I32X16)
    return b.bitcast(b.shl(wide, emit.splat_constant(I32X16, 16)), F32X16)


@operation(f32x16, types.int64)
def load_i8x16(b, address):
    """16 signed bytes as f32."""
    return architecture(b).signed_bytes_to_f32(b, emit.load(b, address, emit.U8X16))


@operation(u8x16, types.int64)
def load_u8x16(b, address):
    return emit.load(b, address, ir.VectorType(I8, 16))


@operation(u8x64, types.int64)
def load_u8x64(b, address):
    return emit.load(b, address, emit.U8X64, 32)


@operation(types.void, types.int64, u8x64)
def store_u8x64(b, address, value):
    emit.store(b, address, value, 32)


@operation(types.void, types.int64, types.int64, i32x16)
def store_codes(b, address, stride, codes):
    """16 int32 codes as bytes: 4 words of 4 bytes, `stride` bytes apart."""
    words = b.bitcast(b.trunc(codes, ir.VectorType(I8, 16)), ir.VectorType(I32, 4))
    for i in range(4):
        emit.store(b, address, b.extract_element(words, I32(i)), 4)
        address = b.add(address, stride)


@operation(f32x16, types.float32)
def splat_f32(b, value):
    return emit.splat(b, value, 16)


@operation(f32x16, types.int64)
def load_splat_f32(b, address):
    """The f32 at `address` in every lane."""
    return emit.splat(b, emit.load(b, address, emit.F32, 4), 16)


# ---- bytes: unpacking codes and scales ----


def _shift(b, shift, value, count):
    """Bytes shifted by `count` (an LLVM i64), whose neighbours' bits may come in."""
    lanes = architecture(b).shift_type(value.type)
    counts = emit.splat(b, b.trunc(count, lanes.element), lanes.count)
    return b.bitcast(shift(b.bitcast(value, lanes), counts), value.type)


@operation(u8x64, u8x64, types.int64, types.int64)
def bits_u8x64(b, value, shift, mask):
    """(value >> shift) & mask in every byte."""
    return b.and_(_shift(b, b.lshr, value, shift), emit.splat(b, b.trunc(mask, I8), 64))


@operation(u8x16, u8x16, types.int64, types.int64)
def bits_u8x16(b, value, shift, mask):
    """(value >> shift) & mask in every byte."""
    return b.and_(_shift(b, b.lshr, value, shift), emit.splat(b, b.trunc(mask, I8), 16))


def or_shifted(b, low, high, shift):
    """low | high << shift; the caller guarantees that no bit leaves its byte."""
    return b.or_(low, _shift(b, b.shl, high, shift))


@operation(u8x64, u8x64, u8x64, types.int64)
def or_shifted_u8x64(b, low, high, shift):
    return or_shifted(b, low, high, shift)


@operation(u8x16, u8x16, u8x16, types.int64)
def or_shifted_u8x16(b, low, high, shift):
    return or_shifted(b, low, high, shift)


@operation(f32x16, u8x16)
def u8x16_to_f32(b, value):
    """16 bytes as f32."""
    return architecture(b).bytes_to_f32(b, value)


# ---- arithmetic ----


@operation(f32x16)
def zero_f32x16(b):
    return emit.splat_constant(F32X16, 0.0)


@operation(f32x16)
def counting_f32x16(b):
    """The number of each lane."""
    return ir.Constant(F32X16, [float(lane) for lane in range(16)])


@operation(f32x16, f32x16, f32x16, f32x16)
def fma(b, x, y, z):
    """x * y + z, rounded once."""
    return emit.fma(b, x, y, z)


@operation(f32x16, f32x16, f32x16)
def mul(b, x, y):
    return b.fmul(x, y)


@operation(f32x16, f32x16, f32x16)
def add(b, x, y):
    return b.fadd(x, y)


@operation(f32x16, f32x16, f32x16)
def sub(b, x, y):
    return b.fsub(x, y)


@operation(f32x16, f32x16, f32x16)
def div(b, x, y):
    return b.fdiv(x, y)


@operation(f32x16, f32x16)
def neg(b, x):
    return b.fneg(x)


@operation(f32x16, f32x16)
def absolute(b, x):
    return emit.call(b, "llvm.fabs.v16f32", F32X16, [x])


@operation(f32x16, f32x16, f32x16)
def larger(b, x, y):
    """The larger; y where either is NaN."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


@operation(i32x16, f32x16)
def round_to_i32(b, x):
    """Nearest integer, ties to even, of values within 2**23; larger ones are cut to that, NaN becomes 0.

    Not llvm.fptosi.sat, which LLVM takes apart into scalars on x86.
    """
    limit = emit.splat_constant(F32X16, 8388608.0)
    x = b.select(b.fcmp_ordered("ord", x, x), x, emit.splat_constant(F32X16, 0.0))
    x = b.select(b.fcmp_ordered("<", x, limit), x, limit)
    x = b.select(b.fcmp_ordered(">", x, b.fneg(limit)), x, b.fneg(limit))
    return b.fptosi(emit.call(b, "llvm.nearbyint.v16f32", F32X16, [x]), I32X16)


@operation(f32x16, types.int64, f32x16, f32x16)
def select_below(b, count, x, y):
    """x in the lanes below `count`, y in the others."""
    lanes = ir.Constant(I32X16, list(range(16)))
    wanted = emit.splat(b, b.trunc(count, I32), 16)
    return b.select(b.icmp_signed("<", lanes, wanted), x, y)


@operation(f32x16, f32x16)
def sqrt(b, x):
    return emit.call(b, "llvm.sqrt.v16f32", F32X16, [x])


@operation(f32x16, f32x16, f32x16, f32x16)
def select_negative(b, where, x, y):
    """x in the lanes where `where` is below zero, y in the others."""
    return b.select(b.fcmp_ordered("<", where, emit.splat_constant(F32X16, 0.0)), x, y)


@operation(types.void, types.int64, types.int64)
def transpose_f32(b, source, target):
    """16 rows of 16 f32 at `source` as columns at `target`."""
    rows = [emit.load(b, emit.offset(b, source, 64 * i), F32X16, 4) for i in range(16)]
    for step in (1, 2, 4, 8):  # rows i and i + step exchange the lanes in which the bit `step` is set, and is not
        low = [lane if not lane & step else 16 + lane - step for lane in range(16)]
        high = [lane + step if not lane & step else 16 + lane for lane in range(16)]
        pairs = [(i, i + step) for i in range(16) if not i & step]
        for i, j in pairs:
            rows[i], rows[j] = emit.shuffle(b, rows[i], rows[j], low), emit.shuffle(b, rows[i], rows[j], high)
    for i, row in enumerate(rows):
        emit.store(b, emit.offset(b, target, 64 * i), row, 4)


# ---- reductions: a fixed tree, so that the same bits come out everywhere ----


def _tree(b, value, combine):
    while value.type.count > 1:
        low, high = emit.half(b, value, 0), emit.half(b, value, 1)
        value = combine(low, high)
    return b.extract_element(value, I32(0))


@operation(types.float32, f32x16)
def sum_f32(b, x):
    return _tree(b, x, b.fadd)


@operation(types.float32, f32x16)
def max_f32(b, x):
    """The largest lane; NaN if any lane is."""

    def larger(low, high):
        lanes = low.type.count
        return emit.call(b, f"llvm.maximum.v{lanes}f32", low.type, [low, high])

    return _tree(b, x, larger)


@operation(types.float32, f32x16, f32x16)
def largest_magnitude(b, x, y):
    """The largest |lane| of both; NaN if any is. Without their signs, floats order as their bits, NaNs above all."""
    bits = [b.and_(b.bitcast(v, I32X16), emit.splat_constant(I32X16, 0x7FFFFFFF)) for v in (x, y)]

    def larger(low, high):
        return emit.call(b, f"llvm.smax.v{low.type.count}i32", low.type, [low, high])

    return b.bitcast(_tree(b, larger(*bits), larger), emit.F32)


@operation(i32x16)
def zero_i32x16(b):
    return emit.splat_constant(I32X16, 0)


@operation(i32x16, i32x16, f32x16, f32x16)
def larger_bits(b, so_far, x, y):
    """The larger ones of bits so far and those of |x| and |y|, lane by lane: see `largest_magnitude`."""
    for value in (x, y):
        bits = b.and_(b.bitcast(value, I32X16), emit.splat_constant(I32X16, 0x7FFFFFFF))
        so_far = emit.call(b, "llvm.smax.v16i32", I32X16, [so_far, bits])
    return so_far


@operation(types.float32, i32x16)
def largest_of_bits(b, bits):
    """The largest f32 whose bits, without a sign, are a lane; NaN if any is."""

    def larger(low, high):
        return emit.call(b, f"llvm.smax.v{low.type.count}i32", low.type, [low, high])

    return b.bitcast(_tree(b, bits, larger), emit.F32)


@operation(types.int64, i32x16)
def sum_i32(b, x):
    return b.sext(_tree(b, x, b.add), I64)


@operation(types.float32, types.float32)
def sqrt_f32(b, x):
    return emit.call(b, "llvm.sqrt.f32", emit.F32, [x])
