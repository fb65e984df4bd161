"""Types that only GGUF has: their blocks to the fields of a wider type, or to f32 weights.

Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp. Both kinds of result have exactly the weights that
`dequantize_row_*` gives there.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32, U8, Fields

# Values of the codes of IQ4_NL and IQ4_XS, and twice those of FP4 (E2M1)
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
_PAIRS = np.array([0, 2, 4, 6], np.uint8)
_MXFP4_BYTES = 17
# Powers of two that f16 holds, for blocks whose largest code may grow eightfold and still fit 8 bits
_F16_EXPONENTS = (-24, 15)
_SPARE_BITS = 3


def widen(blocks: U8, rows: int, cols: int, name: str) -> Fields:
    """The fields, in the type that `GGUF_TYPES` says holds `name`, of u8 [rows * row_bytes] blocks: exact."""
    return _WIDEN[name](blocks, rows, cols)


def decode_blocks(blocks: U8, rows: int, cols: int, name: str) -> F32:
    """f32 [rows, cols] of blocks of a type that nothing here holds exactly, in ggml's order of operations."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(_DECODE[name](blocks, rows), np.float32).reshape(rows, cols)


def mxfp4_fits(blocks: U8) -> bool:
    """Whether `widen` can hold these MXFP4 blocks in Q8_0, whose scales are f16."""
    data = blocks.reshape(-1, _MXFP4_BYTES)
    used = (data[:, 1:] & 0x77).any(axis=1)
    exponents = data[used, 0].astype(np.int32) - 128
    low, high = _F16_EXPONENTS
    return bool(((exponents >= low) & (exponents <= high + _SPARE_BITS)).all())


def mxfp4_weights(blocks: U8, rows: int, cols: int) -> F32:
    """f32 [rows, cols] of MXFP4 blocks; BF16 holds them all."""
    data = blocks.reshape(-1, _MXFP4_BYTES)
    scale = np.ldexp(np.float32(1), data[:, :1].astype(np.int32) - 128)
    codes = _FP4[_nibbles(data[:, 1:])].astype(np.float32)
    with np.errstate(over="ignore"):
        weights: F32 = np.multiply(scale, codes, dtype=np.float32)
    return weights.reshape(rows, cols)


def _nibbles(packed: U8) -> U8:
    """u8 [n, 16] -> u8 [n, 32]: all low nibbles, then all high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _f16(data: U8, rows: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(data).view(np.float16).reshape(rows, -1)


def _signed(values: NDArray[np.int8], d: NDArray[np.float16], rows: int) -> Fields:
    """Q8_0's fields of signed codes."""
    return Fields((values.view(np.uint8) ^ 0x80).reshape(rows, -1), d)


def _iq4_nl(blocks: U8, rows: int, cols: int) -> Fields:
    data = blocks.reshape(-1, 18)
    return _signed(_IQ4[_nibbles(data[:, 2:])], _f16(data[:, :2], rows), rows)


def _mxfp4(blocks: U8, rows: int, cols: int) -> Fields:
    data = blocks.reshape(-1, _MXFP4_BYTES)
    exponents = data[:, :1].astype(np.int32) - 128
    low, high = _F16_EXPONENTS
    spare = np.clip(exponents - high, 0, _SPARE_BITS)
    d = np.ldexp(np.float32(1), np.clip(exponents - spare, low, high)).astype(np.float16)
    return _signed((_FP4[_nibbles(data[:, 1:])] << spare.astype(np.int8)).astype(np.int8), d.reshape(rows, -1), rows)


def _q3_k(blocks: U8, rows: int, cols: int) -> Fields:
    data = blocks.reshape(-1, 110)
    high = np.unpackbits(data[:, :32, None], axis=2, bitorder="little").transpose(0, 2, 1)  # [n, 8, 32]
    low = (data[:, 32:96].reshape(-1, 2, 1, 32) >> _PAIRS[:, None] & 3).reshape(-1, 8, 32)
    codes = (low | high << 2) + np.uint8(28)  # the third bit says "not less four"; Q6_K's zero is 32
    packed, tops = data[:, 96:104], data[:, 104:108]
    six = np.concatenate([packed & 15, packed >> 4], axis=1)
    six |= (tops[:, None, :] >> _PAIRS[:, None] & 3).reshape(-1, 16) << 4
    scales = six.view(np.int8) - np.int8(32)
    return Fields(codes.reshape(rows, cols), _f16(data[:, 108:], rows), None, scales.reshape(rows, -1))


def _ternary(codes: U8, d: NDArray[np.float16], rows: int, cols: int) -> Fields:
    """Q4_0's fields of codes 0, 1, 2 that mean -1, 0, 1; `d` is one for 256 weights."""
    return Fields((codes + np.uint8(7)).reshape(rows, cols), np.repeat(d, 8, axis=1))


def _tq1_0(blocks: U8, rows: int, cols: int) -> Fields:
    """Five codes in a byte, as the digits of a fraction in base three."""
    data = blocks.reshape(-1, 54)
    parts = []
    for start, stop, digits in ((0, 32, 5), (32, 48, 5), (48, 52, 4)):
        powers = np.array([1, 3, 9, 27, 81][:digits], np.uint8)[:, None]
        shifted = data[:, None, start:stop] * powers
        parts.append((shifted.astype(np.uint16) * 3 >> 8).astype(np.uint8).reshape(len(data), -1))
    return _ternary(np.concatenate(parts, axis=1), _f16(data[:, 52:], rows), rows, cols)


def _tq2_0(blocks: U8, rows: int, cols: int) -> Fields:
    data = blocks.reshape(-1, 66)
    codes: U8 = data[:, :64].reshape(-1, 2, 1, 32) >> _PAIRS[:, None] & 3
    return _ternary(codes, _f16(data[:, 64:], rows), rows, cols)


def _q2_k(blocks: U8, rows: int) -> F32:
    data = blocks.reshape(-1, 84)
    factors = data[:, :16]
    codes = (data[:, 16:80].reshape(-1, 2, 1, 32) >> _PAIRS[:, None] & 3).reshape(-1, 16, 16)
    scale = _f32(data[:, 80:82]) * (factors & 15).astype(np.float32)
    least = _f32(data[:, 82:84]) * (factors >> 4).astype(np.float32)
    return scale[:, :, None] * codes.astype(np.float32) - least[:, :, None]


def _iq4_xs(blocks: U8, rows: int) -> F32:
    data = blocks.reshape(-1, 136)
    tops = np.ascontiguousarray(data[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    lows = (data[:, 4:8, None] >> np.array([0, 4], np.uint8) & 15).reshape(-1, 8)
    factors = (lows | tops.astype(np.uint8) << 4).view(np.int8) - np.int8(32)
    scale = _f32(data[:, :2]) * factors.astype(np.float32)
    values = _IQ4[_nibbles(data[:, 8:].reshape(-1, 16))].reshape(-1, 8, 32)
    return scale[:, :, None] * values.astype(np.float32)


def _f32(data: U8) -> F32:
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


_WIDEN: dict[str, Callable[[U8, int, int], Fields]] = {
    "IQ4_NL": _iq4_nl,
    "MXFP4": _mxfp4,
    "Q3_K": _q3_k,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
}
_DECODE: dict[str, Callable[[U8, int], F32]] = {"Q2_K": _q2_k, "IQ4_XS": _iq4_xs}
