"""Weights x activations: a matvec that streams panels at the speed of memory (decode, one token), and a matmul that
unpacks a super-block once into L1 and serves every tile of tokens from there (prefill).

Both do the same float operations in the same order for every token, so a token's result does not depend on how a
prompt was split. Argument block (int64): weights, rows, columns, words, sums (or f32 rows and their stride for float
types), out, out stride in bytes, address of the token count, bias or 0, 1 to add to `out` instead of writing it.
"""

from types import SimpleNamespace

import numpy as np

from edgeq.blocks.table import block_type
from edgeq.kernels import codes
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64, prefetch, stack
from edgeq.simd.tiles import operations
from edgeq.simd.vector import (
    add,
    device,
    fma,
    load_f32x16,
    load_splat_f32,
    mul,
    store_f32x16,
    zero_f32x16,
)

CHUNK = 128  # tokens that share an unpacked super-block: accumulators and code lines stay in L1, activations in L2
TOTALS_BYTES = CHUNK * 64
AHEAD = 1536  # bytes that a matvec asks for ahead: hardware prefetchers stop at the end of a page


def make(variant: str, isa: Isa):
    """The kernel for the block type `variant`."""
    multiply = make_multiply(variant, isa)

    def kernel(args, thread, n_threads):
        multiply(
            load_i64(args),
            load_i64(args + 8),
            load_i64(args + 16),
            load_i64(args + 24),
            load_i64(args + 32),
            load_i64(args + 40),
            load_i64(args + 48),
            load_i64(load_i64(args + 56)),
            load_i64(args + 64),
            load_i64(args + 72),
            thread,
            n_threads,
        )

    return kernel


def make_multiply(variant: str, isa: Isa):
    """`multiply(weights, rows, columns, words, sums, out, stride, count, bias, accumulate, thread, n_threads)` for the
    block type `variant`: a matrix times `count` tokens; for float types f32 rows and their stride are words and sums.
    """
    if variant in codes.FLOATS:
        return _make_float(variant, isa)
    return _make_quantized(variant, isa)


@device
def _finish(out, value, bias, accumulate):
    """Write 16 outputs of one token: + bias, + what is there."""
    if bias != 0:
        value = add(value, load_f32x16(bias))
    if accumulate != 0:
        value = add(load_f32x16(out), value)
    store_f32x16(out, value)


def _make_matvec(kind: SimpleNamespace, ops: SimpleNamespace):
    pair, header_bytes, group_bytes = kind.pair, kind.header_bytes, kind.group_bytes
    has_mins, halves = kind.has_mins, kind.halves
    dot_start, dot_four, dot_eight, dot_to_f32 = ops.dot_start, ops.dot_four, ops.dot_eight, ops.dot_to_f32

    prepare, factors, scale_row, min_row = kind.rows

    @device
    def group_32(group, words, total, sums, block, scales, g, d):
        line0, line1 = pair(group, 0)
        line2, line3 = pair(group, 1)
        line4, line5 = pair(group, 2)
        line6, line7 = pair(group, 3)
        dot = dot_eight(dot_start(sums + 8), line0, line1, line2, line3, line4, line5, line6, line7, words)
        return fma(mul(dot_to_f32(dot), scale_row(block, scales, g, d)), load_splat_f32(sums), total)

    @device
    def group_16(group, words, total, sums, block, scales, g, d):
        line0, line1 = pair(group, 0)
        line2, line3 = pair(group, 1)
        first = dot_four(dot_start(sums + 12), line0, line1, line2, line3, words)
        line4, line5 = pair(group, 2)
        line6, line7 = pair(group, 3)
        second = dot_four(dot_start(sums + 16), line4, line5, line6, line7, words + 16)
        part = mul(dot_to_f32(first), scale_row(block, scales, 2 * g, d))
        part = fma(dot_to_f32(second), scale_row(block, scales, 2 * g + 1, d), part)
        return fma(part, load_splat_f32(sums), total)

    group_dot = group_16 if halves else group_32

    @device
    def matvec(panel, groups, words, sums, scales, mins):
        """16 outputs of one token."""
        total = zero_f32x16()
        block = panel
        for first in range(0, groups, 8):
            prepare(block, scales, mins)
            d, dmin = factors(block)
            group = block + header_bytes
            here = min(8, groups - first)
            for g in range(here):
                for line in range(0, group_bytes, 64):
                    prefetch(group + AHEAD + line)
                total = group_dot(group, words, total, sums, block, scales, g, d)
                if has_mins:
                    total = fma(min_row(block, mins, g, dmin), load_splat_f32(sums + 4), total)
                group += group_bytes
                words += 32
                sums += SUMS_BYTES
            block = group
        return total

    return matvec


def _make_tile_step(kind: SimpleNamespace, ops: SimpleNamespace, tokens: int, in_memory: bool):
    """One super-block, unpacked in `lines`, `scales`, `mins`, times one tile of tokens, added to the totals.

    `in_memory`: with 16 registers the dots leave no room for the totals, which then pass through L1 every group.
    """
    has_mins, halves = kind.has_mins, kind.halves
    dot_group, tile_scale, tile_scale_add = ops.dot_group, ops.tile_scale, ops.tile_scale_add
    tile_add_scaled, tile_add_outer = ops.tile_add_scaled, ops.tile_add_outer
    tile_load, tile_store = ops.tile_load, ops.tile_store
    row = 4 * tokens

    @device
    def group_32(lines, words, sums, scale):
        return tile_scale(dot_group(lines, words, sums + 2 * row), load_f32x16(scale))

    @device
    def group_16(lines, words, sums, scale):
        part = tile_scale(dot_group(lines, words, sums + 3 * row), load_f32x16(scale))
        second = dot_group(lines + 256, words + 16 * tokens, sums + 4 * row)
        return tile_scale_add(second, load_f32x16(scale + 64), part)

    group_dot = group_16 if halves else group_32
    scale_step = 128 if halves else 64

    @device
    def tile_step(lines, scales, mins, groups, words, sums, total_address):
        total = tile_load(total_address, 64)
        for g in range(groups):
            part = group_dot(lines + g * 512, words, sums, scales + g * scale_step)
            if in_memory:
                total = tile_load(total_address, 64)
            total = tile_add_scaled(total, part, sums)
            if has_mins:
                total = tile_add_outer(total, load_f32x16(mins + g * 64), sums + row, 4)
            words += 32 * tokens
            sums += SUMS_BYTES * tokens
            if in_memory:
                tile_store(total_address, 64, total)
        if not in_memory:
            tile_store(total_address, 64, total)

    return tile_step


def _make_quantized(name: str, isa: Isa):
    kind = codes.reader(name, isa.reads_scales_late)
    lines_per_dot = 4 if kind.halves else 8
    tile = isa.tile
    matvec = _make_matvec(kind, operations(isa, 1, kind.bits, lines_per_dot, kind.zero_point))
    ops = operations(isa, tile, kind.bits, lines_per_dot, kind.zero_point)
    tile_step, store_pair = _make_tile_step(kind, ops, tile, isa.registers < 32), ops.store_pair
    header, pair = kind.header, kind.pair
    header_bytes, group_bytes = kind.header_bytes, kind.group_bytes

    @device
    def unpack(block, groups, lines, scales, mins):
        """A super-block as code lines of bytes and f32 scales and mins."""
        header(block, scales, mins)
        for g in range(groups):
            for i in range(4):
                low, high = pair(block + header_bytes + g * group_bytes, i)
                store_pair(lines + g * 512 + i * 128, low, high)

    @device
    def panel_times_tiles(panel, groups, words, sums, tiles, lines, scales, mins, totals):
        """One panel x `tiles` tiles of tokens into `totals`, [token][16] f32."""
        for t in range(tiles * tile):
            store_f32x16(totals + t * 64, zero_f32x16())
        block = panel
        for first in range(0, groups, 8):
            here = min(8, groups - first)
            unpack(block, here, lines, scales, mins)
            for t in range(tiles):
                at = t * groups + first
                tile_step(
                    lines,
                    scales,
                    mins,
                    here,
                    words + at * (32 * tile),
                    sums + at * (SUMS_BYTES * tile),
                    totals + t * (tile * 64),
                )
            block += header_bytes + here * group_bytes

    @device
    def multiply(weights, rows, columns, words, sums, out, stride, count, bias, accumulate, thread, n_threads):
        scales, mins = stack(1024), stack(512)
        lines, totals = stack(4096), stack(TOTALS_BYTES)
        groups = columns // 32
        panel_bytes = (groups + 7) // 8 * header_bytes + groups * group_bytes
        panels = (rows + 15) // 16
        first_panel, last_panel = panels * thread // n_threads, panels * (thread + 1) // n_threads
        if count == 1:
            for p in range(first_panel, last_panel):
                row_bias = bias + p * 64 if bias != 0 else 0
                value = matvec(weights + p * panel_bytes, groups, words, sums, scales, mins)
                _finish(out + p * 64, value, row_bias, accumulate)
            return
        for first in range(0, count, CHUNK):
            n = min(CHUNK, count - first)
            for p in range(first_panel, last_panel):
                row_bias = bias + p * 64 if bias != 0 else 0
                panel_times_tiles(
                    weights + p * panel_bytes,
                    groups,
                    words + first * columns,
                    sums + first * groups * SUMS_BYTES,
                    (n + tile - 1) // tile,
                    lines,
                    scales,
                    mins,
                    totals,
                )
                for t in range(n):
                    _finish(out + (first + t) * stride + p * 64, load_f32x16(totals + t * 64), row_bias, accumulate)

    return multiply


def _make_float(name: str, isa: Isa):
    load_row, row_bytes = codes.FLOATS[name]
    tile = isa.tile
    many, one = operations(isa, tile), operations(isa, 1)
    tile_zero, tile_add_outer, tile_store = many.tile_zero, many.tile_add_outer, many.tile_store
    one_zero, one_add_outer, one_store = one.tile_zero, one.tile_add_outer, one.tile_store
    totals_bytes = tile * 64

    @device
    def multiply(weights, rows, columns, x, x_stride, out, stride, count, bias, accumulate, thread, n_threads):
        totals = stack(totals_bytes)
        panels = (rows + 15) // 16
        for p in range(panels * thread // n_threads, panels * (thread + 1) // n_threads):
            panel = weights + p * columns * row_bytes
            row_bias = bias + p * 64 if bias != 0 else 0
            for first in range(0, count, tile):
                source = x + first * x_stride
                if count == 1:
                    row = one_zero()
                    for k in range(columns):
                        row = one_add_outer(row, load_row(panel + k * row_bytes), source + 4 * k, x_stride)
                    one_store(totals, 64, row)
                else:
                    total = tile_zero()
                    for k in range(columns):
                        total = tile_add_outer(total, load_row(panel + k * row_bytes), source + 4 * k, x_stride)
                    tile_store(totals, 64, total)
                for t in range(min(tile, count - first)):
                    _finish(out + (first + t) * stride + p * 64, load_f32x16(totals + t * 64), row_bias, accumulate)

    return multiply


def reference(
    weights: np.ndarray, name: str, x: np.ndarray, bias: np.ndarray | None = None, add_to: np.ndarray | None = None
) -> np.ndarray:
    """The NumPy twin: [tokens, columns] f32 activations x decoded weights [rows, columns] -> [tokens, rows] f32.

    Quantizes the activations as the kernels do, and follows their order of operations up to f32 rounding.
    """
    from edgeq.kernels import quantize

    if name in codes.FLOATS:
        result = x.astype(np.float64) @ weights.astype(np.float64).T
    else:
        assert block_type(name).bits <= 8
        codes_, scales = quantize.reference(x)
        rounded = codes_.astype(np.float64) * np.repeat(scales.astype(np.float64), 32, axis=1)
        result = rounded @ weights.astype(np.float64).T
    if bias is not None:
        result = result + bias
    if add_to is not None:
        result = result + add_to
    return result.astype(np.float32)
