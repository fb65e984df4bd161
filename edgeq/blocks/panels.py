"""Panels to fields and back: where every bit of a panel lies (`formats/blocks.md`)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks import headers
from edgeq.blocks.fields import U8, Fields, empty_fields
from edgeq.blocks.packing import places
from edgeq.blocks.table import GROUP, PANEL_ROWS, SUPER_BLOCK, BlockType, panels

_CODE_LINES = 8  # code lines of a group; a line is 16 rows x 4 columns
_LINE = 64  # codes of a line, bytes of a packed line


def pack_panels(fields: Fields, bt: BlockType) -> U8:
    """Panels u8 [bt.tensor_bytes(rows, cols)] of quantized fields; rows past the last are zero bytes."""
    rows, cols = fields.codes.shape
    buffer = np.zeros((panels(rows), bt.panel_bytes(cols)), np.uint8)
    padded = _pad_rows(fields.codes)
    header_fields = {name: _pad_rows(part) for name, part in fields.header.items()}
    for index, header, groups in _super_blocks(buffer, cols, bt):
        start = index * SUPER_BLOCK
        width = groups.shape[1] * GROUP
        codes = padded[:, start : start + width]
        lines = codes.reshape(len(buffer), PANEL_ROWS, -1, _CODE_LINES, 4).transpose(0, 2, 3, 1, 4)
        groups[:] = _pack_codes(lines.reshape(len(buffer), -1, _CODE_LINES, _LINE), bt)
        header[:] = headers.pack(header_fields, index, bt)
    return buffer.reshape(-1)


def unpack_panels(data: U8, rows: int, cols: int, bt: BlockType) -> Fields:
    """The fields of quantized panels; `data` is u8 [bt.tensor_bytes(rows, cols)]."""
    buffer = np.asarray(data, np.uint8).reshape(panels(rows), bt.panel_bytes(cols))
    fields = empty_fields(len(buffer) * PANEL_ROWS, cols, bt)
    for index, header, groups in _super_blocks(buffer, cols, bt):
        start = index * SUPER_BLOCK
        width = groups.shape[1] * GROUP
        lines = _unpack_codes(groups, bt).reshape(len(buffer), -1, _CODE_LINES, PANEL_ROWS, 4)
        fields.codes[:, start : start + width] = lines.transpose(0, 3, 1, 2, 4).reshape(-1, width)
        headers.unpack(header, fields.header, index, bt)
    return Fields(fields.codes[:rows], **{name: part[:rows] for name, part in fields.header.items()})


def pack_plain(weights: NDArray[np.generic]) -> U8:
    """Panels u8 of a plain matrix [rows, cols]: each panel is [cols][16 rows] elements."""
    padded = _pad_rows(weights)
    columns = padded.reshape(-1, PANEL_ROWS, padded.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(columns).view(np.uint8).reshape(-1)


def unpack_plain(data: U8, rows: int, cols: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """The matrix [rows, cols] of `dtype` that plain panels hold."""
    elements = np.ascontiguousarray(data).view(dtype).reshape(-1, cols, PANEL_ROWS)
    return np.ascontiguousarray(elements.transpose(0, 2, 1)).reshape(-1, cols)[:rows]


def _pad_rows(values: NDArray[Any]) -> NDArray[Any]:
    missing = -len(values) % PANEL_ROWS
    return np.pad(values, ((0, missing), (0, 0))) if missing else values


def _super_blocks(buffer: U8, cols: int, bt: BlockType) -> Iterator[tuple[int, U8, U8]]:
    """Per super-block of u8 [panels, panel_bytes]: its index, and views of its header and groups. Where a row has one
    scale, all of it is one super-block.

    header u8 [panels, header_bytes], groups u8 [panels, up to 8 or all, group_bytes].
    """
    if bt.per_row:
        groups = buffer[:, bt.header_bytes :]
        yield 0, buffer[:, : bt.header_bytes], groups.reshape(len(buffer), -1, bt.group_bytes)
        return
    for index, first in enumerate(range(0, cols, SUPER_BLOCK)):
        count = min(SUPER_BLOCK, cols - first) // GROUP
        start = bt.super_block_offset(index)
        body = start + bt.header_bytes
        groups = buffer[:, body : body + count * bt.group_bytes]
        yield index, buffer[:, start:body], groups.reshape(len(buffer), count, bt.group_bytes)


def _pack_codes(codes: U8, bt: BlockType) -> U8:
    """u8 [panels, groups, 8 lines, 64] codes -> u8 [panels, groups, group_bytes]."""
    packed = np.zeros((*codes.shape[:2], bt.code_bits, _LINE), np.uint8)
    for line, packed_line, low, at, count in places(bt.code_bits):
        packed[:, :, packed_line] |= (codes[:, :, line] >> low & ((1 << count) - 1)) << at
    return packed.reshape(*codes.shape[:2], -1)


def _unpack_codes(groups: U8, bt: BlockType) -> U8:
    """u8 [panels, groups, group_bytes] -> u8 [panels, groups, 8 lines, 64] codes."""
    packed = groups.reshape(*groups.shape[:2], bt.code_bits, _LINE)
    codes = np.zeros((*groups.shape[:2], _CODE_LINES, _LINE), np.uint8)
    for line, packed_line, low, at, count in places(bt.code_bits):
        codes[:, :, line] |= (packed[:, :, packed_line] >> at & ((1 << count) - 1)) << low
    return codes
