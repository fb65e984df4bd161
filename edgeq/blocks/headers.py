"""What a super-block's header holds: which entries, how many of each, in which form (`formats/blocks.md`). Where a row
has one scale, all of it is one super-block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.table import PANEL_ROWS, SUPER_BLOCK, BlockType

U8 = NDArray[Any]  # of u8, but NumPy's stubs call the bits of a shifted u8 signed

# (field, entries of a row in a super-block, form): "<f4", "<f2", "u1", "i1" as they are; "six" 6-bit numbers, a
# quarter of them at the tops of the others; "pair" the field in low nibbles, `mins` in high ones.
Part = tuple[str, int, str]


def parts(bt: BlockType) -> list[Part]:
    """The parts of a quantized type's header, in order."""
    if bt.per_row:
        return [("d", 1, "<f4")]
    groups = SUPER_BLOCK // bt.scale_group
    if bt.scales == "f16":
        return [("d", groups, "<f2")] + ([("dmin", groups, "<f2")] if bt.has_mins else [])
    if bt.scales == "f32":
        return [("d", groups, "<f4")]
    if bt.scales == "e8m0":
        return [("d", groups, "u1")]
    factors = ["<f2"] * (1 + bt.has_mins)
    first: list[Part] = [(name, 1, form) for name, form in zip(("d", "dmin"), factors, strict=False)]
    return (
        first
        + {
            "u6": [("scales", groups, "six"), ("mins", groups, "six")],
            "s6": [("scales", groups, "six")],
            "i8": [("scales", groups, "i1")],
            "u4": [("scales", groups, "pair")],
        }[bt.scales]
    )


def empty(rows: int, cols: int, bt: BlockType) -> dict[str, NDArray[Any]]:
    """The fields that the header of a type has, all zero: [rows, entries]."""
    found: dict[str, NDArray[Any]] = {}
    for name, entries, form in parts(bt):
        count = entries if bt.per_row else -(-cols * entries // SUPER_BLOCK)
        values = np.zeros((rows, count), "u1" if form in ("six", "pair") else form)
        found[name] = values
        if form == "pair":
            found["mins"] = values.copy()
    return found


def pack(fields: dict[str, NDArray[Any]], index: int, bt: BlockType) -> U8:
    """u8 [panels, header_bytes] of super-block `index`; fields are [16 * panels, entries]."""
    packed = []
    for name, count, form in parts(bt):
        entries = _entries(fields[name], index, count)
        if form == "six":
            entries = _pack_six_bits(entries)
        if form == "pair":
            entries = entries | _entries(fields["mins"], index, count) << 4
        packed.append(entries.reshape(len(entries), -1).view(np.uint8))
    return np.concatenate(packed, axis=1)


def unpack(header: U8, fields: dict[str, NDArray[Any]], index: int, bt: BlockType) -> None:
    """Reads u8 [panels, header_bytes] of super-block `index` into the fields."""
    start = 0
    for name, count, form in parts(bt):
        size = PANEL_ROWS * count * (1 if form in ("six", "pair") else np.dtype(form).itemsize)
        size = size * 3 // 4 if form == "six" else size
        data = np.ascontiguousarray(header[:, start : start + size])
        start += size
        if form == "six":
            _put(_unpack_six_bits(data), fields[name], index)
        elif form == "pair":
            entries = data.reshape(-1, count, PANEL_ROWS)
            _put(entries & 15, fields[name], index)
            _put(entries >> 4, fields["mins"], index)
        else:
            _put(data.view(form).reshape(-1, count, PANEL_ROWS), fields[name], index)


def _entries(values: NDArray[Any], index: int, count: int) -> NDArray[Any]:
    """[panels, count, 16 rows] of values [rows, n]: those of super-block `index`, zero where it is short."""
    part = values[:, index * count : (index + 1) * count]
    part = np.pad(part, ((0, 0), (0, count - part.shape[1])))
    return np.ascontiguousarray(part.reshape(-1, PANEL_ROWS, count).transpose(0, 2, 1))


def _put(entries: NDArray[Any], values: NDArray[Any], index: int) -> None:
    """The inverse of `_entries`: entries [panels, n, 16] into values [rows, ...], those of super-block `index`."""
    count = entries.shape[1]
    part = values[:, index * count : (index + 1) * count]
    part[:] = entries.transpose(0, 2, 1).reshape(len(values), count)[:, : part.shape[1]]


def _pack_six_bits(six: U8) -> U8:
    """u8 [panels, n, 16] in 0..63 -> u8 [panels, 3 n / 4, 16], the last quarter at the tops of the others."""
    first, second, third, last = np.split(six, 4, axis=1)
    tops = (last >> 4, last >> 2 & 3, last & 3)
    packed: U8 = np.concatenate([part | top << 6 for part, top in zip((first, second, third), tops, strict=True)], 1)
    return packed


def _unpack_six_bits(data: U8) -> U8:
    """u8 [panels, 12 n] -> u8 [panels, n, 16] in 0..63."""
    packed = data.reshape(len(data), -1, PANEL_ROWS)
    first, second, third = np.split(packed >> 6, 3, axis=1)
    values: U8 = np.concatenate([packed & 63, first << 4 | second << 2 | third], axis=1)
    return values
