"""NumPy reference of every block type: encode, decode, and GGUF's bytes to panels and back.

Kernels are tested against these functions; they are written for clarity, not speed.
"""

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import F32, U8, decode_fields
from edgeq.blocks.gguf_blocks import pack_blocks, unpack_blocks
from edgeq.blocks.panels import pack_panels, pack_plain, unpack_panels, unpack_plain
from edgeq.blocks.scale_search import search
from edgeq.blocks.table import block_type


def encode(weights: F32, name: str, importance: F32 | None = None) -> U8:
    """Panels u8 [tensor_bytes] of f32 weights [rows, cols].

    Weights must be finite, and within f16's range (65504) for F16 and the quantized types, whose scales are f16;
    callers check that. Beyond, F16 gives infinities, and quantized types codes without meaning.
    importance: f32 [cols], finite and >= 0, what the squared error of a column counts: the mean square of the inputs
    that it is multiplied with. Its unit does not matter; all zeros are as none; plain types ignore it.
    UnsupportedError if the type does not accept rows of `cols`.
    """
    bt = block_type(name)
    weights = np.ascontiguousarray(weights, np.float32)
    bt.panel_bytes(weights.shape[1])  # refuses what the type does not accept
    if bt.quantized:
        return pack_panels(search(weights, bt, importance), bt)
    return pack_plain(to_plain(weights, name))


def decode(data: U8, rows: int, cols: int, name: str) -> F32:
    """f32 weights [rows, cols] of panels u8 [tensor_bytes]; bit for bit what GGUF's numerics give."""
    bt = block_type(name)
    if bt.quantized:
        return decode_fields(unpack_panels(data, rows, cols, bt), bt)
    return from_plain(unpack_plain(data, rows, cols, plain_dtype(name)), name)


def from_gguf(data: U8, rows: int, cols: int, name: str) -> U8:
    """Panels u8 [tensor_bytes] of GGUF's blocks u8 [gguf_bytes], row after row. No bit of information changes.

    UnsupportedError if GGUF's block does not divide `cols`.
    """
    bt = block_type(name)
    bt.gguf_bytes(rows, cols)  # refuses what GGUF cannot hold
    if bt.quantized:
        return pack_panels(unpack_blocks(data, rows, cols, bt), bt)
    return pack_plain(np.ascontiguousarray(data).view(plain_dtype(name)).reshape(rows, cols))


def to_gguf(data: U8, rows: int, cols: int, name: str) -> U8:
    """GGUF's blocks u8 [gguf_bytes] of panels u8 [tensor_bytes]: the inverse of `from_gguf`."""
    bt = block_type(name)
    bt.gguf_bytes(rows, cols)
    if bt.quantized:
        return pack_blocks(unpack_panels(data, rows, cols, bt), bt)
    return unpack_plain(data, rows, cols, plain_dtype(name)).view(np.uint8).reshape(-1)


def plain_dtype(name: str) -> np.dtype[np.generic]:
    """The NumPy dtype that stores a plain type; BF16, which NumPy lacks, is held as its 16 bits."""
    return np.dtype({"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[name.upper()])


def to_plain(weights: F32, name: str) -> NDArray[np.generic]:
    """f32 to a plain type, round to nearest even; past F16's range becomes infinite, NaN stays NaN (quiet)."""
    if name.upper() != "BF16":
        with np.errstate(over="ignore"):
            return weights.astype(plain_dtype(name))
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    return np.where(np.isnan(weights), bits >> 16 | 0x40, rounded).astype(np.uint16)


def from_plain(elements: NDArray[np.generic], name: str) -> F32:
    """A plain type to f32, exact."""
    if name.upper() != "BF16":
        return elements.astype(np.float32)
    return (elements.astype(np.uint32) << 16).view(np.float32)
