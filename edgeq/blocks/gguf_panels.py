"""GGUF blocks to panels and back, as fast as memory allows: whole words of four codes are moved, never single codes.

The same re-arrangement as `reference.from_gguf` and `to_gguf`, which take codes apart and are what this is tested
against. A word is four neighbouring codes of one row, as both layouts have them. Words are first gathered as
[word][panel][block][row], so that all arithmetic is on long contiguous arrays; a panel wants 16 rows of a word side by
side. Where both layouts cut codes into fields of a word, one turns into the other by exchanging fields of two words.
Types without such a way go through their fields.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import U8
from edgeq.blocks.gguf_blocks import pack_blocks, unpack_blocks
from edgeq.blocks.panels import pack_panels, unpack_panels
from edgeq.blocks.table import PANEL_ROWS, SUPER_BLOCK, BlockType, panels

Words = NDArray[Any]  # u32 [words, panels, blocks, 16 rows]

# Bits that stay in the first word where fields of so many bits are exchanged
_STAY = {4: np.uint32(0x0F0F0F0F), 2: np.uint32(0x33333333), 1: np.uint32(0x55555555)}
_SIGN = np.uint32(0x80808080)


def blocks_to_panels(data: U8, rows: int, cols: int, bt: BlockType) -> U8:
    """Panels u8 [bt.tensor_bytes(rows, cols)] of blocks u8 [bt.gguf_bytes(rows, cols)] of a quantized type."""
    if bt.name not in _TO_PANELS:
        return pack_panels(unpack_blocks(data, rows, cols, bt), bt)
    count = panels(rows)
    blocks: U8 = np.ascontiguousarray(data).reshape(rows, cols // bt.gguf_columns, bt.gguf_block_bytes)
    if rows % PANEL_ROWS:
        blocks = np.concatenate([blocks, np.zeros((-rows % PANEL_ROWS, *blocks.shape[1:]), np.uint8)])
    blocks = blocks.reshape(count, PANEL_ROWS, *blocks.shape[1:])
    out = np.zeros((count, bt.panel_bytes(cols)), np.uint8)
    for first, stop, part in _stretches(out, cols, bt):
        _TO_PANELS[bt.name](blocks[:, :, first:stop], part, bt, rows % PANEL_ROWS)
    return out.reshape(-1)


def panels_to_blocks(data: U8, rows: int, cols: int, bt: BlockType) -> U8:
    """The inverse of `blocks_to_panels`."""
    if bt.name not in _TO_BLOCKS:
        return pack_blocks(unpack_panels(data, rows, cols, bt), bt)
    buffer = np.ascontiguousarray(data).reshape(panels(rows), bt.panel_bytes(cols))
    blocks = np.empty((len(buffer), PANEL_ROWS, cols // bt.gguf_columns, bt.gguf_block_bytes), np.uint8)
    for first, stop, part in _stretches(buffer, cols, bt):
        _TO_BLOCKS[bt.name](part, blocks[:, :, first:stop], bt)
    return blocks.reshape(len(buffer) * PANEL_ROWS, -1)[:rows].reshape(-1)


def _stretches(buffer: U8, cols: int, bt: BlockType) -> Iterator[tuple[int, int, U8]]:
    """(first block, block after the last, u8 [panels, super-blocks, bytes]) of full super-blocks, and of the rest."""
    full, per = cols // SUPER_BLOCK, SUPER_BLOCK // bt.gguf_columns
    size = bt.super_block_offset(1)
    if full:
        yield 0, full * per, buffer[:, : full * size].reshape(len(buffer), full, size)
    if cols % SUPER_BLOCK:
        yield full * per, cols // bt.gguf_columns, buffer[:, full * size :].reshape(len(buffer), 1, -1)


def _gather(blocks: U8, start: int, count: int, dtype: str = "<u4") -> NDArray[Any]:
    """[count, panels, blocks, 16 rows] of the numbers at byte `start` of each block."""
    return np.ascontiguousarray(_numbers(blocks, start, count, dtype).transpose(3, 0, 2, 1))


def _scatter(numbers: NDArray[Any], blocks: U8, start: int) -> None:
    """The inverse of `_gather`: writes into the blocks."""
    _numbers(blocks, start, len(numbers), numbers.dtype.str)[:] = numbers.transpose(1, 3, 2, 0)


def _numbers(blocks: U8, start: int, count: int, dtype: str) -> NDArray[Any]:
    """[panels, 16 rows, blocks, count]: bytes of each block as numbers, a view."""
    return blocks[..., start : start + count * np.dtype(dtype).itemsize].view(dtype)


def _lines(part: U8, bt: BlockType, *groups: int) -> NDArray[np.uint32]:
    """[panels, super-blocks, *groups, packed lines, 16 rows] of words, a view of a stretch of panels."""
    return part[..., bt.header_bytes :].view("<u4").reshape(*part.shape[:2], *groups, -1, PANEL_ROWS)


def _entries(part: U8, start: int, stop: int, dtype: str) -> NDArray[Any]:
    """[entries, panels, super-blocks, 16 rows] of a header, a view."""
    view = part[..., start:stop].view(dtype)
    return view.reshape(*part.shape[:2], -1, PANEL_ROWS).transpose(2, 0, 1, 3)


def _exchange(a: Words, b: Words, bits: int) -> tuple[Words, Words]:
    """Exchange the upper fields of `bits` bits of `a` with the lower ones of `b`; its own inverse."""
    stay = _STAY[bits]
    return (a & stay) | (b & stay) << bits, (a >> bits & stay) | (b & ~stay)


def _transpose_fields(words: Words, bits: int) -> Words:
    """Words whose fields of `bits` bits are exchanged with their numbers: field i of word k with field k of word i."""
    fields = 8 // bits
    distance = fields // 2
    while distance:
        pairs = words.reshape(-1, 2, distance, *words.shape[1:])
        words = np.stack(_exchange(pairs[:, 0], pairs[:, 1], bits * distance), axis=1).reshape(words.shape)
        distance //= 2
    return words


def _q8_0(blocks: U8, part: U8, bt: BlockType, last: int) -> None:
    words = _gather(blocks, 2, 8) ^ _SIGN
    if last:
        words[:, -1, :, last:] = 0  # rows that do not exist are zero bytes, not zero weights
    count, superblocks = part.shape[:2]
    groups = words.shape[2] // superblocks
    lines = _lines(part, bt, groups).transpose(3, 0, 1, 2, 4)
    lines[:] = words.reshape(lines.shape)
    _entries(part, 0, 32 * groups, "<u2")[:] = _by_group(_gather(blocks, 0, 1, "<u2"), count, superblocks)


def _q8_0_back(part: U8, blocks: U8, bt: BlockType) -> None:
    groups = blocks.shape[2] // part.shape[1]
    lines = _lines(part, bt, groups).transpose(3, 0, 1, 2, 4)
    words = lines.reshape(8, len(part), -1, PANEL_ROWS) ^ _SIGN
    _scatter(words, blocks, 2)
    _scatter(_by_block(_entries(part, 0, 32 * groups, "<u2")), blocks, 0)


def _nibbles(blocks: U8, part: U8, bt: BlockType, last: int) -> None:
    """Blocks of 32 weights that end in 16 bytes of nibbles, before them the fifth bits, first the scale and the min."""
    count, superblocks = part.shape[:2]
    size = bt.gguf_block_bytes
    words = _gather(blocks, size - 16, 4)
    groups = words.shape[2] // superblocks
    lines = _lines(part, bt, groups).transpose(3, 0, 1, 2, 4)
    for half, packed in enumerate(_exchange(words[0::2], words[1::2], 4)):
        lines[2 * half : 2 * half + 2] = packed.reshape(2, *lines.shape[1:])
    if bt.bits == 5:
        tops = _gather(blocks, size - 20, 1)
        lines[4] = _unshuffle(_unshuffle(tops)).reshape(lines.shape[1:])
    for place, start, stop, form in _scales(bt, groups):
        entries = _by_group(_gather(blocks, place, 1, form), count, superblocks)
        _entries(part, start, stop, form)[:] = entries


def _nibbles_back(part: U8, blocks: U8, bt: BlockType) -> None:
    size, groups = bt.gguf_block_bytes, blocks.shape[2] // part.shape[1]
    lines = np.ascontiguousarray(_lines(part, bt, groups).transpose(3, 0, 1, 2, 4))
    lines = lines.reshape(len(lines), len(part), -1, PANEL_ROWS)
    words = np.stack(_exchange(lines[:2], lines[2:4], 4), axis=1).reshape(4, *lines.shape[1:])
    _scatter(words, blocks, size - 16)
    if bt.bits == 5:
        _scatter(_shuffle(_shuffle(lines[4:])), blocks, size - 20)
    for place, start, stop, form in _scales(bt, groups):
        _scatter(_by_block(_entries(part, start, stop, form)), blocks, place)


def _scales(bt: BlockType, groups: int) -> list[tuple[int, int, int, str]]:
    """(place in a block, start and end in a header, dtype) of each number of a small block."""
    if bt.scales == "e8m0":
        return [(0, 0, 16 * groups, "u1")]
    return [(2 * i, 256 * i, 256 * i + 32 * groups, "<u2") for i in range(1 + bt.has_mins)]


# Bits of a word that change places with those `distance` above, for the even ones to end up below the odd ones
_SWAPS = [(np.uint32(d), np.uint32(m)) for d, m in ((1, 0x22222222), (2, 0x0C0C0C0C), (4, 0x00F000F0), (8, 0x0000FF00))]


def _unshuffle(words: Words) -> Words:
    """Even bits of each word below its odd ones; twice makes bit 4 i + c into bit i of byte c."""
    for distance, mask in _SWAPS:
        moved = (words ^ words >> distance) & mask
        words = words ^ moved ^ moved << distance
    return words


def _shuffle(words: Words) -> Words:
    """The inverse of `_unshuffle`."""
    for distance, mask in reversed(_SWAPS):
        moved = (words ^ words >> distance) & mask
        words = words ^ moved ^ moved << distance
    return words


def _by_group(numbers: NDArray[Any], count: int, superblocks: int) -> NDArray[Any]:
    """One number per block of 32 [1, panels, blocks, 16] as entries [groups, panels, super-blocks, 16]."""
    return numbers.reshape(count, superblocks, -1, PANEL_ROWS).transpose(2, 0, 1, 3)


def _by_block(entries: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `_by_group`."""
    return entries.transpose(1, 2, 0, 3).reshape(1, entries.shape[1], -1, PANEL_ROWS)


def _q45_k(blocks: U8, part: U8, bt: BlockType, last: int) -> None:
    """Q4_K and Q5_K: chunks of 32 bytes have a group in their low nibbles, the next one in their high ones."""
    lines = _lines(part, bt, 4, 2).transpose(2, 3, 4, 0, 1, 5)
    words = _gather(blocks, bt.gguf_block_bytes - 128, 32)
    words = words.reshape(4, 8, *words.shape[1:])
    lines[:, 0, :4], lines[:, 1, :4] = _exchange(words[:, 0::2], words[:, 1::2], 4)
    if bt.name == "Q5_K":
        tops = _transpose_fields(_gather(blocks, 16, 8), 1)
        lines[:, :, 4] = tops.reshape(4, 2, *tops.shape[1:])
    _entries(part, 0, 64, "<u2")[:] = _gather(blocks, 0, 2, "<u2")
    packed = _gather(blocks, 4, 12, "u1")
    scales, mins, rest = packed[:4], packed[4:8], packed[8:]
    for start, first, low in ((64, scales, rest), (160, mins, rest >> 4)):
        _entries(part, start, start + 64, "u1")[:] = (first & 15) | low << 4
        _entries(part, start + 64, start + 96, "u1")[:] = _high_pairs(first >> 4 & 3), _high_pairs(first >> 6)


def _high_pairs(pairs: NDArray[Any]) -> NDArray[Any]:
    """u8 [4, ...] of two bits each as u8 [...]."""
    high: NDArray[Any] = pairs[0] | pairs[1] << 2 | pairs[2] << 4 | pairs[3] << 6
    return high


def _q45_k_back(part: U8, blocks: U8, bt: BlockType) -> None:
    lines = np.ascontiguousarray(_lines(part, bt, 4, 2).transpose(2, 3, 4, 0, 1, 5))
    words = np.stack(_exchange(lines[:, 0, :4], lines[:, 1, :4], 4), axis=2)
    _scatter(words.reshape(32, *words.shape[3:]), blocks, bt.gguf_block_bytes - 128)
    if bt.name == "Q5_K":
        tops = lines[:, :, 4]
        _scatter(_transpose_fields(np.ascontiguousarray(tops.reshape(8, *tops.shape[2:])), 1), blocks, 16)
    _scatter(_entries(part, 0, 64, "<u2"), blocks, 0)
    firsts, rest = [], []
    for start in (64, 160):
        low, high = _entries(part, start, start + 64, "u1"), _entries(part, start + 64, start + 96, "u1")
        pairs = high[:, None] >> np.array([0, 2, 4, 6], np.uint8)[:, None, None, None] & 3  # [2, 4, ...]
        firsts.append((low & 15) | pairs[0] << 4 | pairs[1] << 6)
        rest.append(low >> 4)
    _scatter(np.concatenate([*firsts, rest[0] | rest[1] << 4]), blocks, 4)


def _q6_k(blocks: U8, part: U8, bt: BlockType, last: int) -> None:
    """Each half of 128 columns is four runs of 32: two in low nibbles, two in high ones."""
    lines = _lines(part, bt, 2, 2, 2).transpose(2, 3, 4, 5, 0, 1, 6)
    low = _gather(blocks, 0, 32)
    low = low.reshape(2, 2, 8, *low.shape[1:])
    lines[:, 0, :, :4], lines[:, 1, :, :4] = _exchange(low[:, :, 0::2], low[:, :, 1::2], 4)
    high = _transpose_fields(_gather(blocks, 128, 16), 2)
    lines[:, :, :, 4:] = np.moveaxis(high.reshape(2, 2, 2, 2, *high.shape[1:]), 1, 3)
    _entries(part, 0, 32, "<u2")[:] = _gather(blocks, 208, 1, "<u2")
    _entries(part, 32, 288, "u1")[:] = _gather(blocks, 192, 16, "u1")


def _q6_k_back(part: U8, blocks: U8, bt: BlockType) -> None:
    lines = np.ascontiguousarray(_lines(part, bt, 2, 2, 2).transpose(2, 3, 4, 5, 0, 1, 6))
    low = np.stack(_exchange(lines[:, 0, :, :4], lines[:, 1, :, :4], 4), axis=3)
    _scatter(low.reshape(32, *low.shape[4:]), blocks, 0)
    high = np.ascontiguousarray(np.moveaxis(lines[:, :, :, 4:], 3, 1))
    _scatter(_transpose_fields(high.reshape(16, *high.shape[4:]), 2), blocks, 128)
    _scatter(_entries(part, 0, 32, "<u2"), blocks, 208)
    _scatter(_entries(part, 32, 288, "u1"), blocks, 192)


_NIBBLES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4")
_TO_PANELS: dict[str, Callable[[U8, U8, BlockType, int], None]] = {
    "Q8_0": _q8_0,
    **dict.fromkeys(_NIBBLES, _nibbles),
    "Q4_K": _q45_k,
    "Q5_K": _q45_k,
    "Q6_K": _q6_k,
}
_TO_BLOCKS: dict[str, Callable[[U8, U8, BlockType], None]] = {
    "Q8_0": _q8_0_back,
    **dict.fromkeys(_NIBBLES, _nibbles_back),
    "Q4_K": _q45_k_back,
    "Q5_K": _q45_k_back,
    "Q6_K": _q6_k_back,
}
