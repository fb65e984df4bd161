"""GGUF blocks to fields and back: the byte order of ggml's `block_q8_0`, `block_q4_0`, `block_q4_K`, `block_q5_K`,
`block_q6_K` (ggml-common.h of llama.cpp). Both directions only move bits.
"""

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import U8, Fields
from edgeq.blocks.table import BlockType


def pack_blocks(fields: Fields, bt: BlockType) -> U8:
    """GGUF's bytes u8 [bt.gguf_bytes(rows, cols)] of quantized fields."""
    codes: U8 = fields.codes.reshape(-1, bt.gguf_columns)
    d = _f16_bytes(fields.d)
    if bt.name == "Q8_0":
        parts = [d, codes ^ 0x80]
    elif bt.name == "Q4_0":
        parts = [d, codes[:, :16] | codes[:, 16:] << 4]
    elif bt.name == "Q6_K":
        assert fields.scales is not None
        parts = [*_pack_q6(codes), fields.scales.reshape(-1, 16).view(np.uint8), d]
    else:
        assert fields.scales is not None and fields.dmin is not None and fields.mins is not None
        scales = _pack_scale_mins(fields.scales.reshape(-1, 8).view(np.uint8), fields.mins.reshape(-1, 8))
        pairs = codes.reshape(-1, 4, 2, 32)
        low = ((pairs[:, :, 0] & 15) | (pairs[:, :, 1] & 15) << 4).reshape(-1, 128)
        parts = [d, _f16_bytes(fields.dmin), scales, low]
        if bt.name == "Q5_K":
            parts.insert(3, np.packbits(codes.reshape(-1, 8, 32) >> 4, axis=1, bitorder="little").reshape(-1, 32))
    return np.concatenate(parts, axis=1).reshape(-1)


def unpack_blocks(data: U8, rows: int, cols: int, bt: BlockType) -> Fields:
    """The fields of GGUF's bytes u8 [bt.gguf_bytes(rows, cols)]."""
    blocks: U8 = np.ascontiguousarray(data).reshape(-1, bt.gguf_block_bytes)
    if bt.name == "Q8_0":
        return Fields((blocks[:, 2:] ^ 0x80).reshape(rows, cols), _f16(blocks[:, :2], rows))
    if bt.name == "Q4_0":
        codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
        return Fields(codes.reshape(rows, cols), _f16(blocks[:, :2], rows))
    if bt.name == "Q6_K":
        scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).reshape(rows, -1)
        return Fields(_unpack_q6(blocks[:, :192]).reshape(rows, cols), _f16(blocks[:, 208:], rows), None, scales)
    low: U8 = blocks[:, -128:].reshape(-1, 4, 1, 32)
    codes = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 8, 32)
    if bt.name == "Q5_K":
        codes |= np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little").transpose(0, 2, 1) << 4
    scales, mins = _unpack_scale_mins(blocks[:, 4:16])
    d, dmin = _f16(blocks[:, :2], rows), _f16(blocks[:, 2:4], rows)
    return Fields(codes.reshape(rows, cols), d, dmin, scales.reshape(rows, -1), mins.reshape(rows, -1))


def _f16_bytes(values: NDArray[np.float16]) -> U8:
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1, 2)


def _f16(data: U8, rows: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(data).view(np.float16).reshape(rows, -1)


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


def _pack_q6(codes: U8) -> list[U8]:
    """u8 [n, 256] -> low nibbles u8 [n, 128] and high bits u8 [n, 64]; each half of 128 columns is four runs of 32."""
    runs = codes.reshape(-1, 2, 4, 32)
    low = (runs[:, :, :2] & 15) | (runs[:, :, 2:] & 15) << 4
    top = runs >> 4
    high = top[:, :, 0] | top[:, :, 1] << 2 | top[:, :, 2] << 4 | top[:, :, 3] << 6
    return [low.reshape(-1, 128), high.reshape(-1, 64)]


def _unpack_q6(data: U8) -> U8:
    low = data[:, :128].reshape(-1, 2, 2, 32)
    high = data[:, 128:].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes: U8 = np.concatenate([low & 15, low >> 4], axis=2) | high << 4
    return codes
