"""GGUF blocks to fields and back: the byte order of ggml's `block_q4_0`, `block_q4_K`, ...

Source: ggml-common.h of llama.cpp. Both directions only move bits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import U8, Fields
from edgeq.blocks.table import BlockType

_PAIRS = np.array([0, 2, 4, 6], np.uint8)


def pack_blocks(fields: Fields, bt: BlockType) -> U8:
    """GGUF's bytes u8 [bt.gguf_bytes(rows, cols)] of quantized fields."""
    codes: U8 = fields.codes.reshape(-1, bt.gguf_columns)
    parts = _small(fields, codes, bt) if bt.gguf_columns == 32 else _PACK[bt.name](fields, codes)
    return np.concatenate(parts, axis=1).reshape(-1)


def unpack_blocks(data: U8, rows: int, cols: int, bt: BlockType) -> Fields:
    """The fields of GGUF's bytes u8 [bt.gguf_bytes(rows, cols)]."""
    blocks: U8 = np.ascontiguousarray(data).reshape(-1, bt.gguf_block_bytes)
    codes, header = (_unpack_small if bt.gguf_columns == 32 else _UNPACK[bt.name])(blocks, bt)
    return Fields(codes.reshape(rows, cols), **{name: part.reshape(rows, -1) for name, part in header.items()})


Unpacked = tuple[U8, dict[str, NDArray[Any]]]


def _bytes(values: NDArray[Any] | None, count: int = 1) -> U8:
    """u8 [n, bytes] of `count` values in each of n blocks."""
    assert values is not None
    return np.ascontiguousarray(values).reshape(-1, count).view(np.uint8)


def _f16(data: U8) -> NDArray[np.float16]:
    return np.ascontiguousarray(data).view("<f2")


def _nibbles(packed: U8) -> U8:
    """u8 [..., n] -> u8 [..., 2 n]: all low nibbles, then all high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


# ---- blocks of 32 weights: scale, min, fifth bits, nibbles ----


def _small(fields: Fields, codes: U8, bt: BlockType) -> list[U8]:
    scales = [_bytes(fields.d)] + ([_bytes(fields.dmin)] if bt.has_mins else [])
    if bt.code_bits == 8:
        return [*scales, codes ^ 0x80]
    high = [np.packbits(codes >> 4, axis=1, bitorder="little")] if bt.code_bits == 5 else []
    return [*scales, *high, (codes[:, :16] & 15) | codes[:, 16:] << 4]


def _unpack_small(blocks: U8, bt: BlockType) -> Unpacked:
    header: dict[str, NDArray[Any]] = {"d": _f16(blocks[:, :2]) if bt.scales == "f16" else blocks[:, :1]}
    if bt.has_mins:
        header["dmin"] = _f16(blocks[:, 2:4])
    if bt.code_bits == 8:
        return blocks[:, 2:] ^ 0x80, header
    codes = _nibbles(blocks[:, -16:])
    if bt.code_bits == 5:
        codes |= np.unpackbits(blocks[:, -20:-16], axis=1, bitorder="little") << 4
    return codes, header


# ---- larger blocks ----


def _pack_q45_k(fields: Fields, codes: U8) -> list[U8]:
    pairs = codes.reshape(-1, 4, 2, 32)
    low = ((pairs[:, :, 0] & 15) | (pairs[:, :, 1] & 15) << 4).reshape(-1, 128)
    scales = _pack_scale_mins(_bytes(fields.scales, 8), _bytes(fields.mins, 8))
    return [_bytes(fields.d), _bytes(fields.dmin), scales, low]


def _pack_q5_k(fields: Fields, codes: U8) -> list[U8]:
    *header, low = _pack_q45_k(fields, codes)
    return [*header, _pack_bit(codes.reshape(-1, 8, 32) >> 4), low]


def _pack_bit(bits: U8) -> U8:
    """u8 [n, 8, 32] of 0 or 1 -> u8 [n, 32]: bit i of byte k is that of column 32 i + k."""
    return np.packbits(bits, axis=1, bitorder="little").reshape(-1, 32)


def _unpack_bit(data: U8) -> U8:
    """The inverse of `_pack_bit`."""
    return np.unpackbits(data[:, :, None], axis=2, bitorder="little").transpose(0, 2, 1)


def _unpack_q45_k(blocks: U8, bt: BlockType) -> Unpacked:
    low: U8 = blocks[:, -128:].reshape(-1, 4, 1, 32)
    codes = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 8, 32)
    if bt.name == "Q5_K":
        codes |= _unpack_bit(blocks[:, 16:48]) << 4
    scales, mins = _unpack_scale_mins(blocks[:, 4:16])
    return codes, {"d": _f16(blocks[:, :2]), "dmin": _f16(blocks[:, 2:4]), "scales": scales, "mins": mins}


def _pack_scale_mins(scales: U8, mins: U8) -> U8:
    """6-bit scales and mins u8 [n, 8] each -> u8 [n, 12]: four whole ones, top bits of the others above."""
    first = (scales[:, :4] & 63) | (scales[:, 4:] >> 4) << 6
    second = (mins[:, :4] & 63) | (mins[:, 4:] >> 4) << 6
    return np.concatenate([first, second, (scales[:, 4:] & 15) | mins[:, 4:] << 4], axis=1)


def _unpack_scale_mins(data: U8) -> tuple[U8, U8]:
    first, second, low = data[:, :4], data[:, 4:8], data[:, 8:]
    scales = np.concatenate([first & 63, (low & 15) | (first >> 6) << 4], axis=1)
    mins = np.concatenate([second & 63, (low >> 4) | (second >> 6) << 4], axis=1)
    return scales, mins


def _pack_q6_k(fields: Fields, codes: U8) -> list[U8]:
    """Low nibbles u8 [n, 128] and high bits u8 [n, 64]; each half of 128 columns is four runs of 32."""
    runs = codes.reshape(-1, 2, 4, 32)
    low = (runs[:, :, :2] & 15) | (runs[:, :, 2:] & 15) << 4
    return [low.reshape(-1, 128), _pack_pairs(codes >> 4), _bytes(fields.scales, 16), _bytes(fields.d)]


def _unpack_q6_k(blocks: U8, bt: BlockType) -> Unpacked:
    low = blocks[:, :128].reshape(-1, 2, 2, 32)
    codes: U8 = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 256) | _unpack_pairs(blocks[:, 128:192]) << 4
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return codes, {"d": _f16(blocks[:, 208:]), "scales": scales}


def _pack_pairs(codes: U8) -> U8:
    """2-bit codes u8 [n, 256] -> u8 [n, 64]: each half of 128 columns is four runs of 32, the first in the low bits."""
    runs = codes.reshape(-1, 2, 4, 32)
    packed: U8 = runs[:, :, 0] | runs[:, :, 1] << 2 | runs[:, :, 2] << 4 | runs[:, :, 3] << 6
    return packed.reshape(-1, 64)


def _unpack_pairs(data: U8) -> U8:
    """The inverse of `_pack_pairs`."""
    codes: U8 = data.reshape(-1, 2, 1, 32) >> _PAIRS[:, None] & 3
    return codes.reshape(-1, 256)


def _pack_q2_k(fields: Fields, codes: U8) -> list[U8]:
    factors = _bytes(fields.scales, 16) | _bytes(fields.mins, 16) << 4
    return [factors, _pack_pairs(codes), _bytes(fields.d), _bytes(fields.dmin)]


def _unpack_q2_k(blocks: U8, bt: BlockType) -> Unpacked:
    factors = blocks[:, :16]
    header = {"d": _f16(blocks[:, 80:82]), "dmin": _f16(blocks[:, 82:84]), "scales": factors & 15, "mins": factors >> 4}
    return _unpack_pairs(blocks[:, 16:80]), header


def _pack_q3_k(fields: Fields, codes: U8) -> list[U8]:
    """Top bits of all codes, the others, 6-bit scales as nibbles of j and j + 8 and pairs of bits of j, j + 4, ..."""
    scales = _bytes(fields.scales, 16)
    low = (scales[:, :8] & 15) | (scales[:, 8:] & 15) << 4
    tops = (scales >> 4).reshape(-1, 4, 4)
    high = tops[:, 0] | tops[:, 1] << 2 | tops[:, 2] << 4 | tops[:, 3] << 6
    return [_pack_bit(codes.reshape(-1, 8, 32) >> 2), _pack_pairs(codes & 3), low, high, _bytes(fields.d)]


def _unpack_q3_k(blocks: U8, bt: BlockType) -> Unpacked:
    codes = _unpack_pairs(blocks[:, 32:96]) | _unpack_bit(blocks[:, :32]).reshape(-1, 256) << 2
    tops = (blocks[:, None, 104:108] >> _PAIRS[:, None] & 3).reshape(-1, 16)
    return codes, {"d": _f16(blocks[:, 108:]), "scales": _nibbles(blocks[:, 96:104]) | tops << 4}


def _pack_iq4_xs(fields: Fields, codes: U8) -> list[U8]:
    """d, top bits of the 6-bit scales, their nibbles, and chunks of 16 bytes for 32 codes."""
    scales = _bytes(fields.scales, 8)
    tops = (scales >> 4).astype("<u2") << np.arange(0, 16, 2, dtype="<u2")
    high = np.bitwise_or.reduce(tops, axis=1).astype("<u2")
    chunks = codes.reshape(-1, 8, 2, 16)
    packed = (chunks[:, :, 0] | chunks[:, :, 1] << 4).reshape(-1, 128)
    return [_bytes(fields.d), _bytes(high), scales[:, ::2] & 15 | scales[:, 1::2] << 4, packed]


def _unpack_iq4_xs(blocks: U8, bt: BlockType) -> Unpacked:
    tops = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype="<u2") & 3
    lows = (blocks[:, 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(-1, 8)
    codes = _nibbles(blocks[:, 8:].reshape(-1, 8, 16))
    return codes, {"d": _f16(blocks[:, :2]), "scales": lows | tops.astype(np.uint8) << 4}


def _pack_tq2_0(fields: Fields, codes: U8) -> list[U8]:
    return [_pack_pairs(codes), _bytes(fields.d)]


def _unpack_tq2_0(blocks: U8, bt: BlockType) -> Unpacked:
    return _unpack_pairs(blocks[:, :64]), {"d": _f16(blocks[:, 64:])}


def _pack_q2_0(fields: Fields, codes: U8) -> list[U8]:
    """d, and codes in their order, the first of four in a byte's low bits."""
    fours = codes.reshape(-1, 16, 4) << _PAIRS
    return [_bytes(fields.d), np.bitwise_or.reduce(fours, axis=2)]


def _unpack_q2_0(blocks: U8, bt: BlockType) -> Unpacked:
    return blocks[:, 2:, None] >> _PAIRS & 3, {"d": _f16(blocks[:, :2])}


def _pack_q1_0(fields: Fields, codes: U8) -> list[U8]:
    return [_bytes(fields.d), np.packbits(codes, axis=1, bitorder="little")]


def _unpack_q1_0(blocks: U8, bt: BlockType) -> Unpacked:
    return np.unpackbits(blocks[:, 2:], axis=1, bitorder="little"), {"d": _f16(blocks[:, :2])}


_PACK: dict[str, Callable[[Fields, U8], list[U8]]] = {
    "Q2_K": _pack_q2_k,
    "Q3_K": _pack_q3_k,
    "Q4_K": _pack_q45_k,
    "Q5_K": _pack_q5_k,
    "Q6_K": _pack_q6_k,
    "IQ4_XS": _pack_iq4_xs,
    "TQ2_0": _pack_tq2_0,
    "Q2_0": _pack_q2_0,
    "Q1_0": _pack_q1_0,
}
_UNPACK: dict[str, Callable[[U8, BlockType], Unpacked]] = {
    "Q2_K": _unpack_q2_k,
    "Q3_K": _unpack_q3_k,
    "Q4_K": _unpack_q45_k,
    "Q5_K": _unpack_q45_k,
    "Q6_K": _unpack_q6_k,
    "IQ4_XS": _unpack_iq4_xs,
    "TQ2_0": _unpack_tq2_0,
    "Q2_0": _unpack_q2_0,
    "Q1_0": _unpack_q1_0,
}
