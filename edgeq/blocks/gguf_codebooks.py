"""GGUF's IQ1, IQ2 and IQ3 types as fields of IQ12_W, IQ3_W and IQ3S_W, which hold the same weights, and back.

A block's weights are a grid's entries (`gguf_grids`) with signs, or plus or minus 1/8, times d (2 s + 1) / 2^n.

Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import U8, Fields
from edgeq.blocks.gguf_grids import GRIDS, indices, values
from edgeq.blocks.table import BlockType
from edgeq.errors import FormatError

_UNITS = {"IQ12_W": 8, "IQ3_W": 4, "IQ3S_W": 1}  # of a grid, in the values of the type that holds it
_NIBBLES = np.array([0, 4], np.uint8)
_PAIRS = np.array([0, 2, 4, 6], np.uint8)
_BITS = np.arange(8, dtype=np.uint8)
_SEVENS = np.arange(0, 28, 7, dtype=np.uint32)  # where 32 bits hold four runs of 7 signs
_THREES = np.arange(0, 12, 3, dtype=np.uint16)


@dataclass(frozen=True)
class Block:
    """What a block of 256 weights holds: d f16 [n, 1]; s u8 [n, scales]; index [n, entries] into a grid; negative u8
    [n, 32] with a bit for every weight, or, where the grid has signs itself, with one for each run of weights that 1/8
    is taken from [n, runs]."""

    d: NDArray[np.float16]
    s: U8
    index: NDArray[Any]
    negative: U8


def widen(data: U8, rows: int, cols: int, name: str, held: BlockType) -> Fields:
    """The fields, of the type `held`, of blocks u8 [n, block_bytes] of the type `name`."""
    block = _READ[name](data)
    grid = "IQ1_S" if name == "IQ1_M" else name
    found = values(grid)[block.index].reshape(len(data), 256)
    if grid == "IQ1_S":
        shift = np.where(block.negative, -1, 1).astype(np.int8)
        found = found * np.int8(8) + np.repeat(shift, 256 // shift.shape[1], axis=1)
    else:
        found = np.where(np.unpackbits(block.negative, axis=1, bitorder="little"), -found, found)
    factors = np.repeat(2 * block.s + 1, 16 // block.s.shape[1], axis=1).astype(np.int8)
    codes = _codes(held)[found.view(np.uint8)]
    return Fields(codes.reshape(rows, cols), block.d.reshape(rows, -1), None, factors.reshape(rows, -1))


def narrow(fields: Fields, name: str, held: BlockType) -> U8:
    """Blocks u8 [n, block_bytes] of fields that `widen` made. FormatError if they are not of the type `name`."""
    found = _integers(held)[fields.codes.reshape(-1, 256)]
    factors = np.ascontiguousarray(fields.scales).reshape(-1, 16)
    scales = {"IQ2_XS": 16, "IQ2_S": 16, "IQ1_M": 16}.get(name, 8)
    s = ((factors[:, :: 16 // scales] - 1) >> 1).astype(np.uint8)
    d = np.ascontiguousarray(fields.d).reshape(-1, 1)
    if name in ("IQ1_S", "IQ1_M"):
        negative = (found[:, :: 32 if name == "IQ1_S" else 8] & 7 == 7).astype(np.uint8)
        found, grid = (found + 1) >> 3, "IQ1_S"
    else:
        negative, grid = np.packbits(found < 0, axis=1, bitorder="little"), name
        found = np.abs(found)
    index = indices(np.ascontiguousarray(found).reshape(len(found), -1, GRIDS[grid].columns), grid)
    blocks = _WRITE[name](Block(d, s, index.astype(np.uint16), negative))
    again = widen(blocks, len(blocks), 256, name, held)
    if (index < 0).any() or not (
        np.array_equal(again.codes, fields.codes.reshape(-1, 256)) and np.array_equal(again.scales, factors)  # type: ignore[arg-type]
    ):
        raise FormatError(f"a tensor holds weights that {name} cannot hold: import the model again")
    return blocks


def _integers(held: BlockType) -> NDArray[np.int8]:
    """What the codes stand for, in the unit of a grid."""
    return np.array([value * _UNITS[held.name] for value in held.values]).astype(np.int8)


def _codes(held: BlockType) -> U8:
    """u8 [256]: the code of each signed byte."""
    found = np.zeros(256, np.uint8)
    for code, value in reversed(list(enumerate(_integers(held)))):
        found[int(value) & 255] = code
    return found


def _f16(data: U8) -> NDArray[np.float16]:
    return np.ascontiguousarray(data).view("<f2")


def _words(data: U8, dtype: str) -> NDArray[Any]:
    return np.ascontiguousarray(data).view(dtype)


def _bytes(numbers: NDArray[Any], dtype: str = "u1") -> U8:
    return np.ascontiguousarray(numbers.astype(dtype)).reshape(len(numbers), -1).view(np.uint8)


def _even(seven: NDArray[Any]) -> U8:
    """Signs of 8 weights, of which 7 are stored: an even number of them is negative."""
    signs = seven.astype(np.uint8)
    parity = signs ^ signs >> 4
    parity ^= parity >> 2
    return signs | (parity ^ parity >> 1) << 7


def _or(parts: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = np.bitwise_or.reduce(parts, axis=-1)
    return found


def _nibbles(data: U8) -> U8:
    return (data[:, :, None] >> _NIBBLES & 15).reshape(len(data), -1)


def _pack_nibbles(numbers: NDArray[Any]) -> U8:
    return _bytes(numbers[:, ::2] | numbers[:, 1::2] << 4)


# ---- each type's bytes ----


def _read_signs_and_scales(words: NDArray[Any]) -> tuple[U8, U8]:
    """Four times 7 signs and a scale in 32 bits [n, 8]: negative u8 [n, 32], s u8 [n, 8]."""
    return _even(words[:, :, None] >> _SEVENS & 127).reshape(len(words), 32), (words >> 28).astype(np.uint8)


def _write_signs_and_scales(block: Block) -> NDArray[Any]:
    signs = (block.negative & 127).astype(np.uint32).reshape(-1, 8, 4)
    found: NDArray[Any] = _or(signs << _SEVENS) | block.s.astype(np.uint32) << 28
    return found


def _read_iq2_xxs(data: U8) -> Block:
    words = _words(data[:, 2:], "<u4").reshape(-1, 8, 2)
    negative, s = _read_signs_and_scales(words[:, :, 1])
    return Block(_f16(data[:, :2]), s, np.ascontiguousarray(words[:, :, 0]).view(np.uint8), negative)


def _write_iq2_xxs(block: Block) -> U8:
    index = _bytes(block.index).view("<u4")
    words = np.stack([index, _write_signs_and_scales(block)], axis=2)
    return np.concatenate([_bytes(block.d, "<f2"), _bytes(words, "<u4")], axis=1)


def _read_iq2_xs(data: U8) -> Block:
    words = _words(data[:, 2:66], "<u2")
    return Block(_f16(data[:, :2]), _nibbles(data[:, 66:]), words & 511, _even(words >> 9))


def _write_iq2_xs(block: Block) -> U8:
    words = block.index | (block.negative & 127).astype(np.uint16) << 9
    return np.concatenate([_bytes(block.d, "<f2"), _bytes(words, "<u2"), _pack_nibbles(block.s)], axis=1)


def _read_iq2_s(data: U8) -> Block:
    high = (data[:, 66:74, None] >> _PAIRS & 3).reshape(-1, 32).astype(np.uint16)
    return Block(_f16(data[:, :2]), _nibbles(data[:, 74:]), data[:, 2:34] | high << 8, data[:, 34:66])


def _write_iq2_s(block: Block) -> U8:
    high = _or((block.index >> 8).reshape(-1, 8, 4) << _PAIRS)
    parts = [_bytes(block.index & 255), block.negative, _bytes(high), _pack_nibbles(block.s)]
    return np.concatenate([_bytes(block.d, "<f2"), *parts], axis=1)


def _read_iq3_xxs(data: U8) -> Block:
    negative, s = _read_signs_and_scales(_words(data[:, 66:], "<u4"))
    return Block(_f16(data[:, :2]), s, data[:, 2:66], negative)


def _write_iq3_xxs(block: Block) -> U8:
    words = _bytes(_write_signs_and_scales(block), "<u4")
    return np.concatenate([_bytes(block.d, "<f2"), _bytes(block.index), words], axis=1)


def _read_iq3_s(data: U8) -> Block:
    high = (data[:, 66:74, None] >> _BITS & 1).reshape(-1, 64).astype(np.uint16)
    return Block(_f16(data[:, :2]), _nibbles(data[:, 106:]), data[:, 2:66] | high << 8, data[:, 74:106])


def _write_iq3_s(block: Block) -> U8:
    high = _or((block.index >> 8).reshape(-1, 8, 8) << _BITS)
    parts = [_bytes(block.index & 255), _bytes(high), block.negative, _pack_nibbles(block.s)]
    return np.concatenate([_bytes(block.d, "<f2"), *parts], axis=1)


def _read_iq1_s(data: U8) -> Block:
    words = _words(data[:, 34:], "<u2")
    high = (words[:, :, None] >> _THREES & 7).reshape(-1, 32)
    s, negative = (words >> 12 & 7).astype(np.uint8), (words >> 15).astype(np.uint8)
    return Block(_f16(data[:, :2]), s, data[:, 2:34] | high << 8, negative)


def _write_iq1_s(block: Block) -> U8:
    words = _or((block.index >> 8).reshape(-1, 8, 4) << _THREES)
    words |= block.s.astype(np.uint16) << 12 | block.negative.astype(np.uint16) << 15
    return np.concatenate([_bytes(block.d, "<f2"), _bytes(block.index & 255), _bytes(words, "<u2")], axis=1)


def _read_iq1_m(data: U8) -> Block:
    """d has its four nibbles above the scales."""
    words = _words(data[:, 48:], "<u2")
    d = _or((words >> 12) << np.arange(0, 16, 4, dtype=np.uint16)).astype("<u2").view("<f2")
    high = _nibbles(data[:, 32:48]).astype(np.uint16)
    s = (words[:, :, None] >> _THREES & 7).reshape(-1, 16).astype(np.uint8)
    return Block(d[:, None], s, data[:, :32] | (high & 7) << 8, (high >> 3).astype(np.uint8))


def _write_iq1_m(block: Block) -> U8:
    d = np.ascontiguousarray(block.d).view("<u2") >> np.arange(0, 16, 4, dtype=np.uint16) & 15
    words = _or(block.s.astype(np.uint16).reshape(-1, 4, 4) << _THREES) | d << 12
    high = _pack_nibbles(block.index >> 8 | block.negative.astype(np.uint16) << 3)
    return np.concatenate([_bytes(block.index & 255), high, _bytes(words, "<u2")], axis=1)


_READ: dict[str, Callable[[U8], Block]] = {
    "IQ2_XXS": _read_iq2_xxs,
    "IQ2_XS": _read_iq2_xs,
    "IQ2_S": _read_iq2_s,
    "IQ3_XXS": _read_iq3_xxs,
    "IQ3_S": _read_iq3_s,
    "IQ1_S": _read_iq1_s,
    "IQ1_M": _read_iq1_m,
}
_WRITE: dict[str, Callable[[Block], U8]] = {
    "IQ2_XXS": _write_iq2_xxs,
    "IQ2_XS": _write_iq2_xs,
    "IQ2_S": _write_iq2_s,
    "IQ3_XXS": _write_iq3_xxs,
    "IQ3_S": _write_iq3_s,
    "IQ1_S": _write_iq1_s,
    "IQ1_M": _write_iq1_m,
}
