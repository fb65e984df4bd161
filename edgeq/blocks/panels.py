"""Panels to fields and back: where every bit of a panel lies (`formats/blocks.md`)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import U8, Fields, empty_fields
from edgeq.blocks.table import GROUP, PANEL_ROWS, SUPER_BLOCK, BlockType, panels

_CODE_LINES = 8  # code lines of a group; a line is 16 rows x 4 columns
_LINE = 64  # codes of a line, bytes of a packed line


def pack_panels(fields: Fields, bt: BlockType) -> U8:
    """Panels u8 [bt.tensor_bytes(rows, cols)] of quantized fields; rows past the last are zero bytes."""
    rows, cols = fields.codes.shape
    buffer = np.zeros((panels(rows), bt.panel_bytes(cols)), np.uint8)
    padded = Fields(*(None if part is None else _pad_rows(part) for part in _parts(fields)))  # type: ignore[arg-type]
    for index, header, groups in _super_blocks(buffer, cols, bt):
        start = index * SUPER_BLOCK
        width = groups.shape[1] * GROUP
        codes = padded.codes[:, start : start + width]
        lines = codes.reshape(len(buffer), PANEL_ROWS, -1, _CODE_LINES, 4).transpose(0, 2, 3, 1, 4)
        groups[:] = _pack_planes(lines.reshape(len(buffer), -1, _CODE_LINES, _LINE), bt)
        header[:] = _pack_header(padded, index, bt)
    return buffer.reshape(-1)


def unpack_panels(data: U8, rows: int, cols: int, bt: BlockType) -> Fields:
    """The fields of quantized panels; `data` is u8 [bt.tensor_bytes(rows, cols)]."""
    buffer = np.asarray(data, np.uint8).reshape(panels(rows), bt.panel_bytes(cols))
    fields = empty_fields(len(buffer) * PANEL_ROWS, cols, bt)
    for index, header, groups in _super_blocks(buffer, cols, bt):
        start = index * SUPER_BLOCK
        width = groups.shape[1] * GROUP
        lines = _unpack_planes(groups, bt).reshape(len(buffer), -1, _CODE_LINES, PANEL_ROWS, 4)
        fields.codes[:, start : start + width] = lines.transpose(0, 3, 1, 2, 4).reshape(-1, width)
        _unpack_header(header, fields, index, bt)
    return Fields(*(None if part is None else part[:rows] for part in _parts(fields)))  # type: ignore[arg-type]


def pack_plain(weights: NDArray[np.generic]) -> U8:
    """Panels u8 of a plain matrix [rows, cols]: each panel is [cols][16 rows] elements."""
    padded = _pad_rows(weights)
    columns = padded.reshape(-1, PANEL_ROWS, padded.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(columns).view(np.uint8).reshape(-1)


def unpack_plain(data: U8, rows: int, cols: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """The matrix [rows, cols] of `dtype` that plain panels hold."""
    elements = np.ascontiguousarray(data).view(dtype).reshape(-1, cols, PANEL_ROWS)
    return np.ascontiguousarray(elements.transpose(0, 2, 1)).reshape(-1, cols)[:rows]


def _parts(fields: Fields) -> tuple[NDArray[np.generic] | None, ...]:
    return fields.codes, fields.d, fields.dmin, fields.scales, fields.mins


def _pad_rows(values: NDArray[np.generic]) -> NDArray[np.generic]:
    missing = -len(values) % PANEL_ROWS
    return np.pad(values, ((0, missing), (0, 0))) if missing else values


def _super_blocks(buffer: U8, cols: int, bt: BlockType) -> Iterator[tuple[int, U8, U8]]:
    """Per super-block of u8 [panels, panel_bytes]: its index, and views of its header and groups.

    header u8 [panels, header_bytes], groups u8 [panels, up to 8, group_bytes].
    """
    for index, first in enumerate(range(0, cols, SUPER_BLOCK)):
        count = min(SUPER_BLOCK, cols - first) // GROUP
        start = bt.super_block_offset(index)
        body = start + bt.header_bytes
        groups = buffer[:, body : body + count * bt.group_bytes]
        yield index, buffer[:, start:body], groups.reshape(len(buffer), count, bt.group_bytes)


def _pack_planes(codes: U8, bt: BlockType) -> U8:
    """u8 [panels, groups, 8 lines, 64] codes -> u8 [panels, groups, group_bytes].

    In a plane of b bits, packed line h holds code lines h * (8 / b) + i at bits b * i.
    """
    packed = []
    shift = 0
    for bits in bt.planes:
        lines = 8 // bits
        plane = (codes >> shift & ((1 << bits) - 1)).reshape(*codes.shape[:2], bits, lines, _LINE)
        merged = plane[:, :, :, 0].copy()
        for i in range(1, lines):
            merged |= plane[:, :, :, i] << (bits * i)
        packed.append(merged.reshape(*codes.shape[:2], bits * _LINE))
        shift += bits
    return np.concatenate(packed, axis=2)


def _unpack_planes(groups: U8, bt: BlockType) -> U8:
    """u8 [panels, groups, group_bytes] -> u8 [panels, groups, 8 lines, 64] codes."""
    codes = np.zeros((*groups.shape[:2], _CODE_LINES, _LINE), np.uint8)
    shift = start = 0
    for bits in bt.planes:
        lines = 8 // bits
        plane = groups[:, :, start : start + bits * _LINE].reshape(*groups.shape[:2], bits, 1, _LINE)
        places = (bits * np.arange(lines, dtype=np.uint8))[:, None]
        values = plane >> places & ((1 << bits) - 1)
        codes |= values.reshape(codes.shape) << shift
        start += bits * _LINE
        shift += bits
    return codes


def _entries(values: NDArray[np.generic], index: int, per_super_block: int) -> NDArray[np.generic]:
    """[panels, per_super_block, 16 rows] of values [rows, n]: those of super-block `index`, zero where it is short."""
    part = values[:, index * per_super_block : (index + 1) * per_super_block]
    part = np.pad(part, ((0, 0), (0, per_super_block - part.shape[1])))
    return np.ascontiguousarray(part.reshape(-1, PANEL_ROWS, per_super_block).transpose(0, 2, 1))


def _put(entries: NDArray[np.generic], values: NDArray[np.generic], index: int) -> None:
    """The inverse of `_entries`: entries [panels, n, 16] into values [rows, ...], those of super-block `index`."""
    per_super_block = entries.shape[1]
    part = values[:, index * per_super_block : (index + 1) * per_super_block]
    part[:] = entries.transpose(0, 2, 1).reshape(len(values), per_super_block)[:, : part.shape[1]]


def _bytes(entries: NDArray[np.generic]) -> U8:
    return entries.reshape(len(entries), -1).view(np.uint8)


def _pack_header(fields: Fields, index: int, bt: BlockType) -> U8:
    """u8 [panels, header_bytes] of super-block `index`."""
    if bt.scales == "f16":
        return _bytes(_entries(fields.d, index, 8))
    parts = [_bytes(_entries(fields.d, index, 1))]
    assert fields.scales is not None
    if bt.scales == "i8":
        parts.append(_bytes(_entries(fields.scales, index, 16)))
    else:
        assert fields.dmin is not None and fields.mins is not None
        parts.append(_bytes(_entries(fields.dmin, index, 1)))
        for values in (fields.scales, fields.mins):
            parts += _pack_six_bits(_entries(values, index, 8))
    return np.concatenate(parts, axis=1)


def _unpack_header(header: U8, fields: Fields, index: int, bt: BlockType) -> None:
    """Reads u8 [panels, header_bytes] of super-block `index` into the fields."""
    count = len(header)
    if bt.scales == "f16":
        _put(np.ascontiguousarray(header).view("<f2").reshape(count, 8, PANEL_ROWS), fields.d, index)
        return
    _put(np.ascontiguousarray(header[:, :32]).view("<f2").reshape(count, 1, PANEL_ROWS), fields.d, index)
    assert fields.scales is not None
    if bt.scales == "i8":
        _put(header[:, 32:].view(np.int8).reshape(count, 16, PANEL_ROWS), fields.scales, index)
        return
    assert fields.dmin is not None and fields.mins is not None
    _put(np.ascontiguousarray(header[:, 32:64]).view("<f2").reshape(count, 1, PANEL_ROWS), fields.dmin, index)
    _put(_unpack_six_bits(header[:, 64:160]), fields.scales, index)
    _put(_unpack_six_bits(header[:, 160:256]), fields.mins, index)


def _pack_six_bits(values: NDArray[np.generic]) -> list[U8]:
    """u8 [panels, 8 groups, 16] in 0..63 -> low nibbles u8 [panels, 4 * 16] and high bits u8 [panels, 2 * 16]."""
    six: U8 = values.astype(np.uint8)
    low = (six[:, :4] & 15) | (six[:, 4:] & 15) << 4
    pairs = (six >> 4).reshape(len(six), 2, 4, PANEL_ROWS)
    high = pairs[:, :, 0] | pairs[:, :, 1] << 2 | pairs[:, :, 2] << 4 | pairs[:, :, 3] << 6
    return [low.reshape(len(six), -1), high.reshape(len(six), -1)]


def _unpack_six_bits(data: U8) -> U8:
    """u8 [panels, 96] -> u8 [panels, 8 groups, 16] in 0..63."""
    low = data[:, :64].reshape(-1, 4, PANEL_ROWS)
    high = data[:, 64:].reshape(-1, 2, 1, PANEL_ROWS) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    values: U8 = np.concatenate([low & 15, low >> 4], axis=1) | high.reshape(-1, 8, PANEL_ROWS) << 4
    return values
