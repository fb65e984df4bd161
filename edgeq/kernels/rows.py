"""Rows of a matrix as f32, dequantized from its panels."""

import numpy as np

from edgeq.blocks.table import BlockType, block_type
from edgeq.kernels import codes
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_f32, load_u8, stack, store_f32
from edgeq.simd.vector import device, store_f32x16, store_u8x64


def make_row(name: str, isa: Isa):
    """`row(weights, columns, index, out)`: row `index` of a matrix of the block type `name`, f32 at `out`."""
    if name in codes.FLOATS:
        return _make_float_row(name)
    bt = block_type(name)
    return _make_row_of_one_scale(bt) if bt.per_row else _make_quantized_row(name, isa)


def _make_quantized_row(name: str, isa: Isa):
    kind = codes.reader(name, isa)
    header, table, exact = kind.header, kind.table, kind.table is not None
    pair = codes.pair_4 if exact else kind.pair
    header_bytes, group_bytes, zero_point = kind.header_bytes, kind.group_bytes, 0 if exact else kind.zero_point
    has_mins, columns_per_scale = kind.has_mins, 16 if kind.codes.halves else 32

    @device
    def row(weights, columns, index, out):
        scales, mins, lines = stack(1024), stack(1024), stack(512)
        groups = columns // 32
        panel_bytes = (groups + 7) // 8 * header_bytes + groups * group_bytes
        block = weights + index // 16 * panel_bytes
        lane = (index % 16) * 4
        for first in range(0, groups, 8):
            header(block, scales, mins)
            group = block + header_bytes
            for g in range(min(8, groups - first)):
                for i in range(4):
                    low, high = pair(group, i)
                    store_u8x64(lines + i * 128, low)
                    store_u8x64(lines + i * 128 + 64, high)
                for k in range(32):
                    code = load_u8(lines + k // 4 * 64 + lane + k % 4) - zero_point
                    place = (g * 32 + k) // columns_per_scale * 64 + lane
                    value = load_f32(scales + place) * (table[code] if exact else np.float32(code))
                    if has_mins:
                        value += load_f32(mins + place)
                    store_f32(out, value)
                    out += 4
                group += group_bytes
            block = group

    return row


def _make_row_of_one_scale(bt: BlockType):
    header_bytes, group_bytes, zero_point = bt.header_bytes, bt.group_bytes, bt.zero_point

    @device
    def row(weights, columns, index, out):
        panel = weights + index // 16 * (header_bytes + columns // 32 * group_bytes)
        lane = (index % 16) * 4
        scale, codes_at = load_f32(panel + lane), panel + header_bytes + lane
        for k in range(columns):
            code = load_u8(codes_at + k // 4 * 64 + k % 4) - zero_point
            store_f32(out + 4 * k, scale * np.float32(code))

    return row


def _make_float_row(name: str):
    load_row, row_bytes = codes.FLOATS[name]

    @device
    def row(weights, columns, index, out):
        values = stack(64)
        panel = weights + index // 16 * columns * row_bytes
        for k in range(columns):
            store_f32x16(values, load_row(panel + k * row_bytes))
            store_f32(out + 4 * k, load_f32(values + (index % 16) * 4))

    return row
