"""Register tiles of T tokens x 16 rows, and the byte dot products of the chosen body as Numba operations.

`operations(isa, tokens, code_bits, lines, zero_point)` is everything a matrix kernel needs, specialised for one block
type; a matvec is the tile of one token. Activations come packed by `kernels/quantize.py`: words [line][token][4] and,
per group of 32 columns, five rows of T values: scale, scale * sum, -sum, -sum of each half.
"""

from importlib import import_module
from types import SimpleNamespace

from numba.core import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.emit import F32, F32X16, I32, I32X16
from edgeq.simd.isa import Isa
from edgeq.simd.types import Tile, f32x16, i32x16, u8x64


def _splat_at(b, address, index, element):
    return emit.splat(b, emit.load(b, emit.offset(b, address, 4 * index), element, 4), 16)


def _shift_for(zero_point: int) -> int:
    return zero_point.bit_length() - 1


def operations(isa: Isa, tokens: int, code_bits: int = 8, lines: int = 8, zero_point: int = 0) -> SimpleNamespace:
    """The tile operations for `tokens` tokens; the dot products for groups of `lines` lines of `code_bits` codes."""
    body = import_module(isa.module)
    return SimpleNamespace(**_float_tiles(body, tokens), **_dots(body, tokens, code_bits, lines, zero_point))


def _to_floats(body, b, dots):
    """Dots as f32, exactly: they start at the body's BIAS, 0 or the bits of a large float."""
    if body.BIAS == 0:
        return b.sitofp(dots, F32X16)
    bias = b.bitcast(emit.splat_constant(I32X16, body.BIAS), F32X16)
    return b.fsub(b.bitcast(dots, F32X16), bias)


def _dots(body, tokens: int, code_bits: int, lines: int, zero_point: int) -> dict:
    ints = Tile(i32x16, tokens)
    centred = zero_point == 0 or code_bits in body.CENTRED

    def start(b, sums):
        """-zero_point * sum of the activations, the value that a group's dot starts at; `sums` holds -sum."""
        splat = getattr(body, "start", lambda b, scalar: emit.splat(b, scalar, 16))
        if centred:
            return lambda t: splat(b, I32(body.BIAS))
        shift = _shift_for(zero_point)
        if body.BIAS == 0:
            return lambda t: b.shl(_splat_at(b, sums, t, I32), emit.splat_constant(I32X16, shift))

        def biased(t):
            at = emit.load(b, emit.offset(b, sums, 4 * t), I32, 4)
            return splat(b, b.add(b.shl(at, I32(shift)), I32(body.BIAS)))

        return biased

    @intrinsic
    def dot_group(typingctx, line_address, word_address, sums):
        """Tile of the int32 dots of one group: codes as bytes at `line_address`, one line after the other."""

        def generate(context, b, signature, args):
            totals = body.dot_tile(b, args[0], args[1], tokens, lines, code_bits, start(b, args[2]))
            return _pack(b, ints.llvm, totals)

        return ints(types.int64, types.int64, types.int64), generate

    @intrinsic
    def dot_start(typingctx, sums):
        return i32x16(types.int64), lambda context, b, signature, args: start(b, args[0])(0)

    def dot_lines(context, b, signature, args):
        return body.dot_lines(b, args[0], args[1:-1], args[-1], code_bits)

    @intrinsic
    def dot_four(typingctx, total, line0, line1, line2, line3, words):
        """total + four code lines . 16 activations, for a matvec."""
        return i32x16(i32x16, *[u8x64] * 4, types.int64), dot_lines

    @intrinsic
    def dot_eight(typingctx, total, line0, line1, line2, line3, line4, line5, line6, line7, words):
        """total + eight code lines . 32 activations, for a matvec."""
        return i32x16(i32x16, *[u8x64] * 8, types.int64), dot_lines

    @intrinsic
    def dot_to_f32(typingctx, dot):
        return f32x16(i32x16), lambda context, b, signature, args: _to_floats(body, b, args[0])

    @intrinsic
    def store_pair(typingctx, address, low, high):
        """Store two code lines as `dot_group` reads them."""

        def generate(context, b, signature, args):
            address, low, high = args
            if hasattr(body, "arrange_pair"):
                low, high = body.arrange_pair(b, low, high)
            emit.store(b, address, low, 32)
            emit.store(b, emit.offset(b, address, 64), high, 32)
            return context.get_dummy_value()

        return types.void(types.int64, u8x64, u8x64), generate

    return {
        "dot_group": dot_group,
        "dot_start": dot_start,
        "dot_four": dot_four,
        "dot_eight": dot_eight,
        "dot_to_f32": dot_to_f32,
        "store_pair": store_pair,
    }


def _pack(b, llvm_type, values):
    tile = emit.ir.Constant(llvm_type, emit.ir.Undefined)
    for t, value in enumerate(values):
        tile = b.insert_value(tile, value, t)
    return tile


def _float_tiles(body, tokens: int) -> dict:
    floats, ints = Tile(f32x16, tokens), Tile(i32x16, tokens)

    def unpack(b, tile):
        return [b.extract_value(tile, t) for t in range(tokens)]

    @intrinsic
    def tile_zero(typingctx):
        return floats(), lambda context, b, signature, args: emit.ir.Constant(floats.llvm, None)

    @intrinsic
    def tile_load(typingctx, address, stride):
        """Rows of 16 f32, `stride` bytes apart."""

        def generate(context, b, signature, args):
            address, stride = args
            rows = []
            for _ in range(tokens):
                rows.append(emit.load(b, address, F32X16, 4))
                address = b.add(address, stride)
            return _pack(b, floats.llvm, rows)

        return floats(types.int64, types.int64), generate

    @intrinsic
    def tile_store(typingctx, address, stride, tile):
        def generate(context, b, signature, args):
            address, stride, tile = args
            for row in unpack(b, tile):
                emit.store(b, address, row, 4)
                address = b.add(address, stride)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, floats), generate

    @intrinsic
    def tile_scale(typingctx, dots, scale):
        """f32(dots[t]) * scale."""

        def generate(context, b, signature, args):
            return _pack(b, floats.llvm, [b.fmul(_to_floats(body, b, dot), args[1]) for dot in unpack(b, args[0])])

        return floats(ints, f32x16), generate

    @intrinsic
    def tile_scale_add(typingctx, dots, scale, tile):
        """f32(dots[t]) * scale + tile[t]."""

        def generate(context, b, signature, args):
            pairs = zip(unpack(b, args[0]), unpack(b, args[2]), strict=True)
            return _pack(b, floats.llvm, [emit.fma(b, _to_floats(body, b, dot), args[1], row) for dot, row in pairs])

        return floats(ints, f32x16, floats), generate

    @intrinsic
    def tile_add_scaled(typingctx, total, part, scales):
        """total[t] + part[t] * scales[t], with T f32 at the address `scales`."""

        def generate(context, b, signature, args):
            rows = [
                emit.fma(b, part, _splat_at(b, args[2], t, F32), total)
                for t, (total, part) in enumerate(zip(unpack(b, args[0]), unpack(b, args[1]), strict=True))
            ]
            return _pack(b, floats.llvm, rows)

        return floats(floats, floats, types.int64), generate

    @intrinsic
    def tile_add_outer(typingctx, total, row, scalars, stride):
        """total[t] + row * scalar[t]: f32 at `scalars`, `stride` bytes apart."""

        def generate(context, b, signature, args):
            address, rows = args[2], []
            for total in unpack(b, args[0]):
                rows.append(emit.fma(b, args[1], _splat_at(b, address, 0, F32), total))
                address = b.add(address, args[3])
            return _pack(b, floats.llvm, rows)

        return floats(floats, f32x16, types.int64, types.int64), generate

    return {
        "tile_zero": tile_zero,
        "tile_load": tile_load,
        "tile_store": tile_store,
        "tile_scale": tile_scale,
        "tile_scale_add": tile_scale_add,
        "tile_add_scaled": tile_add_scaled,
        "tile_add_outer": tile_add_outer,
    }
