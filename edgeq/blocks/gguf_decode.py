"""Types that only GGUF has: their blocks to the fields of a type that holds the same weights, and back.

Source of the layouts: ggml-common.h and ggml-quants.c of llama.cpp. The fields have exactly the weights that
`dequantize_row_*` gives there.
"""

import numpy as np

from edgeq.blocks import gguf_codebooks
from edgeq.blocks.fields import U8, Fields
from edgeq.blocks.gguf_types import BY_NAME
from edgeq.blocks.table import block_type

# TQ1_0's bytes hold up to five codes as the digits of a fraction in base three: first byte, last byte, digits
_RUNS = ((0, 32, 5), (32, 48, 5), (48, 52, 4))


def widen(blocks: U8, rows: int, cols: int, name: str) -> Fields:
    """The fields, in the type that `GGUF_TYPES` says holds `name`, of u8 [rows * row_bytes] blocks: exact."""
    if name == "TQ1_0":
        return _tq1_0(blocks, rows, cols)
    kind = BY_NAME[name]
    return gguf_codebooks.widen(blocks.reshape(-1, kind.block_bytes), rows, cols, name, block_type(kind.held))


def narrow(fields: Fields, name: str) -> U8:
    """u8 [rows * row_bytes] blocks of type `name` of what `widen` made of them. FormatError if they are not that."""
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
