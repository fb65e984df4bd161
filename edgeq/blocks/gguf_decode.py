"""Types that only GGUF has: their blocks to the fields of a type that holds the same weights, and back.

Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp. The fields have exactly the weights that
`dequantize_row_*` gives there; of NVFP4 only where its scales lie near enough to one another (`nvfp4.py`).
"""

import numpy as np

from edgeq.blocks import gguf_codebooks, nvfp4
from edgeq.blocks.fields import F32, U8, Fields
from edgeq.blocks.gguf_types import BY_NAME
from edgeq.blocks.table import block_type
from edgeq.errors import FormatError

# TQ1_0's bytes hold up to five codes as the digits of a fraction in base three: first byte, last byte, digits
_RUNS = ((0, 32, 5), (32, 48, 5), (48, 52, 4))
# Halves of NVFP4's scales, floats of 4 and 3 bits; what stands for no number there is 0
_NORMAL = [(8 + m) * 2.0 ** (e - 11) for e in range(1, 16) for m in range(8)]
_HALF_E4M3 = np.array([*(m * 2.0**-10 for m in range(8)), *_NORMAL], np.float32)
_HALF_E4M3[127] = 0


def widen(blocks: U8, rows: int, cols: int, name: str) -> Fields:
    """The fields, in the type that `GGUF_TYPES` says holds `name`, of u8 [rows * row_bytes] blocks."""
    if name == "NVFP4":
        return _nvfp4(blocks, rows, cols)
    if name == "TQ1_0":
        return _tq1_0(blocks, rows, cols)
    kind = BY_NAME[name]
    return gguf_codebooks.widen(blocks.reshape(-1, kind.block_bytes), rows, cols, name, block_type(kind.held))


def narrow(fields: Fields, name: str) -> U8:
    """u8 [rows * row_bytes] blocks of type `name` of what `widen` made of them. FormatError if they are not that."""
    if name == "NVFP4":
        return _nvfp4_back(fields)
    if name == "TQ1_0":
        return _tq1_0_back(fields)
    return gguf_codebooks.narrow(fields, name, block_type(BY_NAME[name].held)).reshape(-1)


def can_narrow(held: str, name: str) -> bool:
    """Whether `narrow` turns fields of the type `held` into blocks of the type `name`."""
    return held not in ("", name) and name in BY_NAME and BY_NAME[name].held == held


def _tq1_0(blocks: U8, rows: int, cols: int) -> Fields:
    data = blocks.reshape(-1, 54)
    parts = []
    for start, stop, digits in _RUNS:
        powers = np.array([1, 3, 9, 27, 81][:digits], np.uint8)[:, None]
        shifted = data[:, None, start:stop] * powers
        parts.append((shifted.astype(np.uint16) * 3 >> 8).astype(np.uint8).reshape(len(data), -1))
    d = np.ascontiguousarray(data[:, 52:]).view("<f2").reshape(rows, -1)
    return Fields(np.concatenate(parts, axis=1).reshape(rows, cols), d)


def _tq1_0_back(fields: Fields) -> U8:
    """The fractions as ggml writes them: digits times 256 / 243, rounded up."""
    codes, parts, start = fields.codes.reshape(-1, 256), [], 0
    for first, last, digits in _RUNS:
        width = last - first
        run = codes[:, start : start + width * digits].reshape(len(codes), digits, width).astype(np.uint16)
        start += width * digits
        powers = np.array([81, 27, 9, 3, 1][:digits], np.uint16)[:, None]
        parts.append(((run * powers).sum(axis=1) * 256 + 242) // 243)
    parts.append(np.ascontiguousarray(fields.d).view(np.uint8).reshape(-1, 2))
    return np.concatenate(parts, axis=1).astype(np.uint8).reshape(-1)


def nvfp4_scales(blocks: U8) -> F32:
    """f32 [n, 4]: halves of the scales of NVFP4 blocks u8 [n, 36], as `2 E2M1` is to be multiplied by them."""
    scales: F32 = _HALF_E4M3[np.ascontiguousarray(blocks[:, :4]) & 127]
    return scales


def _nvfp4(blocks: U8, rows: int, cols: int) -> Fields:
    """Four runs of 16 weights, the first eight of each in the low nibbles."""
    data = blocks.reshape(-1, 36)
    runs = data[:, 4:].reshape(-1, 4, 8)
    codes = np.concatenate([runs & 15, runs >> 4], axis=2).reshape(rows, cols)
    return nvfp4.fields_of(codes, nvfp4_scales(data).reshape(rows, -1), np.ones(1, np.float32))


def _nvfp4_back(fields: Fields) -> U8:
    scales = nvfp4.scales_of(fields).reshape(-1, 4)
    order = np.searchsorted(_HALF_E4M3[:127], scales)  # the table rises, but for its last entry
    if (_HALF_E4M3[np.minimum(order, 126)] != scales).any():
        raise FormatError("a tensor holds weights that NVFP4 cannot hold: import the model again")
    runs = fields.codes.reshape(-1, 4, 2, 8)
    packed = (runs[:, :, 0] | runs[:, :, 1] << 4).reshape(-1, 32)
    return np.concatenate([order.astype(np.uint8), packed], axis=1).reshape(-1)
