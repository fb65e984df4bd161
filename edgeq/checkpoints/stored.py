"""A tensor's numbers inside a file: where they are, and reading rows of them as f32.

Rows are read into fresh arrays, not through a map: pages of a mapped checkpoint would count as the
process's memory, and a checkpoint is larger than a board's RAM.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from edgeq.errors import CheckpointError
from edgeq.system.input import InputFile

# safetensors' name of an element type -> its bytes in a file, little-endian. Integers can be listed, not converted.
ELEMENTS: dict[str, np.dtype[np.generic]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0")


@dataclass(frozen=True)
class Stored:
    """`shape` elements of type `dtype` in `path`, the first at byte `offset`, `strides` elements apart per axis."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: str
    offset: int
    strides: tuple[int, ...]


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous tensor."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last one, both included; 0 for an empty tensor."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))


def read_rows(tensor: Stored, file: InputFile, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Rows `start` to `stop` of the first axis as a new f32 array; f64 is rounded, all else is exact.

    CheckpointError if the elements are not floating point or the file ends before them.
    """
    if tensor.dtype not in FLOATS:
        raise CheckpointError(
            f"{tensor.path}: tensor {tensor.name!r} has element type {tensor.dtype}, not a floating-point one: "
            "convert the original, unquantized checkpoint"
        )
    return to_f32(read_elements(tensor, file, start, stop), tensor.dtype)


def read_elements(tensor: Stored, file: InputFile, start: int, stop: int) -> npt.NDArray[Any]:
    """Rows `start` to `stop` of the first axis as they are stored, as ELEMENTS says; BF16 as its 16 bits. A tensor
    without an axis is a row.

    CheckpointError if the element type is unknown or the file ends before them.
    """
    if tensor.dtype not in ELEMENTS:
        raise CheckpointError(f"{tensor.path}: tensor {tensor.name!r} has element type {tensor.dtype}, unknown here")
    whole = tensor.shape or (1,)
    if not 0 <= start <= stop <= whole[0]:
        raise ValueError(f"rows {start} to {stop} of tensor {tensor.name!r} of shape {tensor.shape}")
    shape = (stop - start, *whole[1:])
    element = ELEMENTS[tensor.dtype]
    strides = tensor.strides or (1,)
    raw = np.empty(extent(shape, strides), element)
    _fill(tensor, file, raw, tensor.offset + start * strides[0] * element.itemsize)
    if tensor.strides == row_major(tensor.shape):
        return raw.reshape(shape)
    return np.lib.stride_tricks.as_strided(raw, shape, [s * element.itemsize for s in tensor.strides])


def _fill(tensor: Stored, file: InputFile, raw: npt.NDArray[np.generic], offset: int) -> None:
    if file.read_into(raw.view(np.uint8).data, offset) < raw.nbytes:
        raise CheckpointError(f"{tensor.path}: ends inside tensor {tensor.name!r}: download it again")


def to_f32(rows: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """Elements of a floating-point type in f32; f64 is rounded, all else is exact."""
    if dtype == "F32" and rows.flags.c_contiguous:
        return rows.view(np.float32)
    if dtype.startswith("F8"):
        table = np.arange(256, dtype=np.uint8).view(ELEMENTS[dtype]).astype(np.float32)
        return np.take(table, rows.view(np.uint8))
    if dtype != "BF16":
        with np.errstate(over="ignore"):  # an f64 past f32's range becomes infinite, which the pipeline refuses
            return rows.astype(np.float32, order="C")
    wide = rows.astype(np.uint32, order="C")
    np.left_shift(wide, 16, out=wide)
    return wide.view(np.float32)
