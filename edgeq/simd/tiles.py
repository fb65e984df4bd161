"""Register tiles of T tokens x 16 rows, and the byte dot products of the chosen body as Numba operations.

`operations(isa, tokens, kind)` is everything a matrix kernel needs, specialised for one block type; a matvec is the
tile of one token. Activations come packed by `kernels/pack_rows.py`: words [line][token][4] and, per group of 32
columns, five rows of T values: scale, scale * sum, -sum, -sum of each half.

A dot times a coded scale is an integer below 2**24, and so exact as f32: a body may multiply integers or floats.
A tile may hold several panels, the tokens of one after those of the other, and share what it loads of the activations.
"""

from dataclasses import replace
from types import SimpleNamespace

from numba import types
from numba.extending import intrinsic

from edgeq.simd import emit
from edgeq.simd.body import BYTES, Body, Codes
from edgeq.simd.cpu_kind import architecture
from edgeq.simd.emit import F32, F32X16, I32, I32X16
from edgeq.simd.isa import Isa
from edgeq.simd.types import Tile, f32x16, i32x16, u8x64


def _splat_at(b, address, index, element):
    return emit.splat(b, emit.load(b, emit.offset(b, address, 4 * index), element, 4), 16)


def _shift_for(zero_point: int) -> int:
    return zero_point.bit_length() - 1


def operations(isa: Isa, tokens: int, kind: Codes = BYTES, panels: int = 1, bias_rows: int = 0) -> SimpleNamespace:
    """The float operations of a tile of `tokens` tokens of each of `panels` panels, and the dot products of groups of
    32 columns of one panel.

    `bias_rows` bytes after each row of scales is room for another, which some bodies need: what FLOAT_BIAS makes of it.
    """
    return SimpleNamespace(**_float_tiles(tokens, panels), **_dots(isa.body(), tokens, kind, bias_rows))


def _float_bias(b):
    return b.bitcast(emit.splat_constant(I32X16, emit.FLOAT_BIAS), F32X16)


def float_of_dots(bias: int, b, dots):
    """Dots as f32, exactly."""
    if bias == 0:
        return b.sitofp(dots, F32X16)
    return b.fsub(b.bitcast(dots, F32X16), _float_bias(b))


def scale_of_codes(b, codes, signed: bool):
    """16 byte codes of scales as f32."""
    cpu = architecture(b)
    return cpu.signed_bytes_to_f32(b, codes) if signed else cpu.bytes_to_f32(b, codes)


def dot_start(body: Body, tokens: int, kind: Codes):
    """`start(b, sums) -> value(t)`: -zero_point * sum of the activations, where a dot starts; `sums` holds -sum."""
    shift, bias = _shift_for(kind.zero_point), body.bias(kind)
    apart = tokens == 1 or kind.coded  # the tiles of other types are faster with copies

    def start(b, sums):
        if kind.zero_point == 0 or kind.bits in body.centred:
            return lambda t: body.start(b, I32(bias), sums if apart else None)
        if bias == 0:
            return lambda t: b.shl(_splat_at(b, sums, t, I32), emit.splat_constant(I32X16, shift))

        def biased(t):
            at = emit.load(b, emit.offset(b, sums, 4 * t), I32, 4)
            return body.start(b, b.add(b.shl(at, I32(shift)), I32(bias)), sums if apart else None)

        return biased

    return start


def _starts_in_memory(b, sums, tokens: int, shift: int, bias: int):
    """`value(t)`: bias - 2**shift * sum of token t, all computed at once, and loaded wherever one is asked for."""
    several = emit.ir.VectorType(I32, tokens)
    start = b.shl(emit.load(b, sums, several, 4), emit.splat_constant(several, shift))
    if bias:
        start = b.add(start, emit.splat_constant(several, bias))
    address = emit.in_memory(b, start)
    return lambda t: _splat_at(b, address, t, I32)


def _dots(body: Body, tokens: int, kind: Codes, bias_rows: int) -> dict:
    centre = body.tile_centre(kind)
    if centre:  # by a body whose dots all are those of tiles
        kind, centring = replace(kind, zero_point=0), {"zero_point": centre}
    else:
        centring = {}
    floats, start, begins_at = Tile(f32x16, tokens), dot_start(body, tokens, kind), body.bias(kind)
    tile_bias = (begins_at or body.tile_bias) if kind.short_scales and bias_rows else 0
    row = 4 * tokens
    # parts of a group that share a scale: first line, lines, row of sums
    parts = [(0, 4, 3), (4, 4, 4)] if kind.halves else [(0, 8, 2)]
    in_integers = body.scales_integers(kind)

    def scaled(b, dot, scale, total):
        value = float_of_dots(begins_at, b, dot)
        return b.fmul(value, scale) if total is None else emit.fma(b, value, scale, total)

    def keep_scale(b, address, scale):
        """Write a row of scales, and what the bias of a tile's dots makes of them."""
        emit.store(b, address, scale, 4)
        if tile_bias:
            emit.store(b, emit.offset(b, address, bias_rows), b.fmul(scale, b.fneg(_float_bias(b))), 4)

    def times_scale(b, dot, codes, so_far):
        """so_far + dot * the scales whose codes, 16 bytes, are at `codes`; as f32."""
        scale = emit.load(b, codes, emit.U8X16, 16)
        return scaled(b, dot, scale_of_codes(b, scale, kind.signed), so_far)

    def group_value(b, dot, codes):
        """The dot of a group without halves, as f32."""
        return times_scale(b, dot, codes, None) if kind.coded else float_of_dots(begins_at, b, dot)

    @intrinsic
    def dot_eight(typingctx, line0, line1, line2, line3, line4, line5, line6, line7, words, sums, codes):
        """Eight code lines . 32 activations as f32, for a matvec; times the scales at `codes`, if scales are codes."""

        def generate(context, b, signature, args):
            words, sums, codes = args[8:]
            begin = start(b, emit.offset(b, sums, 8))(0)
            return group_value(b, body.dot_lines(b, begin, args[:8], words, kind.bits), codes)

        return f32x16(*[u8x64] * 8, *[types.int64] * 3), generate

    @intrinsic
    def first_four(typingctx, line0, line1, line2, line3, words, sums, codes):
        """The first half of what `dot_eight` does, so far: 16 int32, or the bits of 16 f32."""

        def generate(context, b, signature, args):
            words, sums, codes = args[4:]
            begin = start(b, emit.offset(b, sums, 4 * parts[0][2]))(0)
            dot = body.dot_lines(b, begin, args[:4], words, kind.bits)
            if not kind.halves:
                return dot
            value = times_scale(b, dot, codes, None)
            if body.pins_halves:
                value = emit.join(b, emit.pin(b, emit.quarters(b, value)))
            return b.bitcast(value, I32X16)

        return i32x16(*[u8x64] * 4, *[types.int64] * 3), generate

    @intrinsic
    def last_four(typingctx, so_far, line4, line5, line6, line7, words, sums, codes):
        """The whole group. Its lines are loaded after the first half is done: fewer registers are needed."""

        def generate(context, b, signature, args):
            so_far, lines, (words, sums, codes) = args[0], args[1:5], args[5:]
            words = emit.offset(b, words, 16)
            if not kind.halves:
                return group_value(b, body.dot_lines(b, so_far, lines, words, kind.bits), codes)
            dot = body.dot_lines(b, start(b, emit.offset(b, sums, 4 * parts[1][2]))(0), lines, words, kind.bits)
            return times_scale(b, dot, emit.offset(b, codes, 16), b.bitcast(so_far, F32X16))

        return f32x16(i32x16, *[u8x64] * 4, *[types.int64] * 3), generate

    @intrinsic
    def store_scale(typingctx, out, codes):
        """Write the 16 byte codes at `codes` as a row of scales, 64 bytes, that `scaled_tile` reads."""

        def generate(context, b, signature, args):
            value = emit.load(b, args[1], emit.U8X16, 16)
            if in_integers:
                emit.store(b, args[0], body.scale_pairs(b, value, kind.signed), 32)
            else:
                keep_scale(b, args[0], scale_of_codes(b, value, kind.signed))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    @intrinsic
    def store_scale_row(typingctx, out, row):
        """Write a row of f32 scales that `scaled_tile` reads."""

        def generate(context, b, signature, args):
            keep_scale(b, *args)
            return context.get_dummy_value()

        return types.void(types.int64, f32x16), generate

    def tile_start(b, sums, bias):
        if begins_at or not body.tile_bias:
            return start(b, sums)
        subtracts = kind.zero_point != 0 and kind.bits not in body.centred
        if subtracts:
            return _starts_in_memory(b, sums, tokens, _shift_for(kind.zero_point), bias)
        if bias == 0:
            return start(b, sums)
        constant = emit.splat_constant(I32X16, bias)  # a register, whose copies cost less than loads on Intel
        return lambda t: constant

    def biased(b, dots, scales):
        """Dots that start at `tile_bias`, times scales: (bias + dot) * scale - bias * scale, rounded as dot * scale."""
        at = emit.offset(b, scales, bias_rows)
        factors, begin = emit.load(b, scales, F32X16, 4), emit.load(b, at, F32X16, 4)
        values = []
        for dot in dots:
            if body.reloads_rows:
                at = emit.conceal(b, at, "r")
                begin = emit.load(b, at, F32X16, 4)
            values.append(emit.fma(b, b.bitcast(dot, F32X16), factors, begin))
        return values

    def tile(b, lines, words, sums, scales):
        total = None
        for i, (first, count, at) in enumerate(parts):
            where = emit.offset(b, lines, 64 * first), emit.offset(b, words, first * row), tokens, count, kind.bits
            bias = tile_bias if total is None and not in_integers else 0
            begin, scale = tile_start(b, emit.offset(b, sums, at * row), bias), emit.offset(b, scales, 64 * i)
            if in_integers:
                total = body.dot_tile(b, *where, begin if total is None else total.__getitem__, scale, **centring)
                continue
            dots = body.dot_tile(b, *where, begin, **centring)
            if bias:
                total = biased(b, dots, scale)
            else:
                factors = emit.load(b, scale, F32X16, 4)
                before = total or [None] * tokens
                total = [scaled(b, dot, factors, so_far) for dot, so_far in zip(dots, before, strict=True)]
        return [float_of_dots(begins_at, b, t) for t in total] if in_integers else total

    @intrinsic
    def scaled_tile(typingctx, lines, words, sums, scales):
        """A group's dots times its rows of scales: codes as bytes at `lines`, one line after the other."""

        def generate(context, b, signature, args):
            return pack(b, floats.llvm, tile(b, *args))

        return floats(types.int64, types.int64, types.int64, types.int64), generate

    def dot_tile(count):
        """Dots of `count` code lines as f32; what `scaled_tile` does of 8, without scales."""

        @intrinsic
        def of_lines(typingctx, lines, words, sums):
            def generate(context, b, signature, args):
                begin = start(b, emit.offset(b, args[2], 2 * row))
                dots = body.dot_tile(b, args[0], args[1], tokens, count, kind.bits, begin, **centring)
                return pack(b, floats.llvm, [float_of_dots(begins_at, b, dot) for dot in dots])

            return floats(types.int64, types.int64, types.int64), generate

        return of_lines

    @intrinsic
    def store_pair(typingctx, address, low, high):
        """Store two code lines as `scaled_tile` reads them."""

        def generate(context, b, signature, args):
            address, low, high = args
            low, high = body.arrange_pair(b, low, high)
            emit.store(b, address, low, 32)
            emit.store(b, emit.offset(b, address, 64), high, 32)
            return context.get_dummy_value()

        return types.void(types.int64, u8x64, u8x64), generate

    return {
        "in_two": kind.halves or body.in_two,
        "dot_eight": dot_eight,
        "first_four": first_four,
        "last_four": last_four,
        "store_scale": store_scale,
        "store_scale_row": store_scale_row,
        "scaled_tile": scaled_tile,
        "dot_tile": dot_tile,
        "store_pair": store_pair,
    }


def pack(b, llvm_type, values):
    tile = emit.ir.Constant(llvm_type, emit.ir.Undefined)
    for t, value in enumerate(values):
        tile = b.insert_value(tile, value, t)
    return tile


def _float_tiles(tokens: int, panels: int) -> dict:
    count = tokens * panels
    floats = Tile(f32x16, count)

    def unpack(b, tile):
        return [b.extract_value(tile, t) for t in range(count)]

    def unpack_rows(b, row, kind):
        """For each vector of a tile, its panel's; or the one for all."""
        if kind == f32x16:
            return [row] * count
        return [b.extract_value(row, panel) for panel in range(panels) for _ in range(tokens)]

    def scalars(b, address, stride):
        """For each vector of a tile, its token's, loaded when it is asked for: so few wait in registers."""
        several = []
        for i in range(count):
            if i < tokens:
                several.append(_splat_at(b, address, 0, F32))
                address = b.add(address, stride)
            yield several[i % tokens]

    @intrinsic
    def tile_zero(typingctx):
        return floats(), lambda context, b, signature, args: emit.ir.Constant(floats.llvm, None)

    @intrinsic
    def tile_load(typingctx, address, stride):
        """Rows of 16 f32, `stride` bytes apart."""

        def generate(context, b, signature, args):
            address, stride = args
            values = []
            for _ in range(count):
                values.append(emit.load(b, address, F32X16, 4))
                address = b.add(address, stride)
            return pack(b, floats.llvm, values)

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

    def fmas(b, parts, factors, totals):
        return pack(b, floats.llvm, [emit.fma(b, *each) for each in zip(parts, factors, totals, strict=True)])

    @intrinsic
    def tile_fma(typingctx, part, row, total):
        """part[t] * row + total[t], with a row for each panel or one for all."""

        def generate(context, b, signature, args):
            return fmas(b, unpack(b, args[0]), unpack_rows(b, args[1], row), unpack(b, args[2]))

        return floats(floats, row, floats), generate

    @intrinsic
    def tile_add_scaled(typingctx, total, part, scales):
        """total[t] + part[t] * scales[t], with T f32 at the address `scales`."""

        def generate(context, b, signature, args):
            return fmas(b, unpack(b, args[1]), scalars(b, args[2], emit.I64(4)), unpack(b, args[0]))

        return floats(floats, floats, types.int64), generate

    @intrinsic
    def tile_add_outer(typingctx, total, row, scalar, stride):
        """total[t] + row * scalar[t]: f32 at `scalar`, `stride` bytes apart; a row for each panel or one for all."""

        def generate(context, b, signature, args):
            return fmas(b, unpack_rows(b, args[1], row), scalars(b, *args[2:]), unpack(b, args[0]))

        return floats(floats, row, types.int64, types.int64), generate

    return {
        "tile_zero": tile_zero,
        "tile_load": tile_load,
        "tile_store": tile_store,
        "tile_fma": tile_fma,
        "tile_add_scaled": tile_add_scaled,
        "tile_add_outer": tile_add_outer,
    }
