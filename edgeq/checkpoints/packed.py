"""A matrix that a checkpoint stores quantized, whatever the method: codes, and scales that groups of columns share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.stored import FLOATS, to_f32
from edgeq.errors import CheckpointError

GROUP = 32  # columns of a block: what must share a scale to be held by one
F32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Rows of a packed matrix: weight[r, k] = scales[r, groups[k]] * codes[r, k], or of `codebook[codes[r, k]]`, above
    `offsets[r, groups[k]]` where there are such.

    codes    [rows, columns]: i16 with the zero point already subtracted, f32 values, or u8 indices of the codebook
    scales   f32 [rows, number of groups]
    groups   [columns]: the group of each column
    offsets  f32 like scales, or None
    factor   where scales are 8-bit floats times one number, that
    """

    codes: npt.NDArray[Any]
    scales: F32Array
    groups: npt.NDArray[np.intp]
    codebook: F32Array | None = None
    offsets: F32Array | None = None
    factor: float | None = None

    def weights(self) -> F32Array:
        """f32 [rows, columns]; a product of an f16 or bf16 scale and an integer code is exact."""
        values = self.codes.astype(np.float32) if self.codebook is None else np.take(self.codebook, self.codes)
        apply_groups(np.multiply, values, self.scales, self.groups)
        if self.offsets is not None:
            apply_groups(np.add, values, self.offsets, self.groups)
        return values

    def first(self, count: int) -> "Rows":
        """The first rows."""
        offsets = None if self.offsets is None else self.offsets[:count]
        return replace(self, codes=self.codes[:count], scales=self.scales[:count], offsets=offsets)

    def of_blocks(self, values: F32Array, columns: int) -> F32Array:
        """f32 [rows, blocks]: the scale, or offset, of each block of so many columns, where these share one."""
        return values[:, self.groups[::columns]]


def apply_groups(
    operation: np.ufunc, values: npt.NDArray[Any], factors: npt.NDArray[Any], groups: npt.NDArray[np.intp]
) -> None:
    """values [rows, columns] = operation(values, that of `factors` [rows, n] of each column's group), in place."""
    columns, count = values.shape[1], factors.shape[1]
    run = columns // max(count, 1)
    if run * count == columns and np.array_equal(groups, np.arange(columns) // run):  # in order: many times faster
        runs = values.reshape(len(values), count, run)
        operation(runs, factors[:, :, None], out=runs, casting="unsafe")
    else:
        operation(values, np.take(factors, groups, axis=1), out=values, casting="unsafe")


@dataclass(frozen=True)
class Survey:
    """What a type must be able to hold to hold a packed matrix.

    values       all that a code can stand for: f32 integers, or the codebook in its order; empty if codes are floats
    groups       [columns]: the group of each column; a group shares a scale
    f16_error    the largest relative error that rounding a scale or offset to f16 makes; infinite if one is out of
                 range
    powers       whether all scales are powers of two, from 2^-128 on
    offset       whether groups have offsets
    small_error  the largest error of a scale in NVFP4_W, relative to the largest one near it, where scales of every 16
                 columns are 8-bit floats times one number; None where they are others
    """

    values: F32Array
    groups: npt.NDArray[np.intp]
    f16_error: float
    powers: bool
    offset: bool = False
    small_error: float | None = None

    def of_small(self, error: float) -> "Survey":
        """The same of scales that are 8-bit floats times one number."""
        return replace(self, small_error=error)

    def even(self, columns: int) -> bool:
        """Whether every so many columns that follow one another, and what is left behind them, share a scale."""
        last = len(self.groups) - 1
        first = np.arange(len(self.groups)) // columns * columns
        return last % GROUP == GROUP - 1 and bool((self.groups == self.groups[first]).all())


class Packed(ABC):
    """A matrix [rows, columns] that is stored quantized in several tensors.

    name    what the unquantized matrix would be called, `...weight`
    kind    method and bits for messages: `GPTQ 4-bit`
    bits    of a code
    stored  names of the tensors that it is stored in
    """

    def __init__(self, files: Files, name: str, kind: str, bits: int, shape: tuple[int, int], stored: list[str]):
        self.files, self.name, self.kind, self.bits = files, name, kind, bits
        self.shape, self.stored = shape, stored

    @abstractmethod
    def rows(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop`."""

    @abstractmethod
    def survey(self) -> Survey:
        """Reads scales and zero points, not the codes. CheckpointError for a scale that is not finite."""

    def weights(self, start: int, stop: int) -> F32Array:
        """f32 weights of rows `start` to `stop`."""
        return self.rows(start, stop).weights()

    def fail(self, what: str) -> CheckpointError:
        """An error about this matrix, to be raised."""
        path = next(self.files.tensors[name].path for name in self.stored if name in self.files.tensors)
        return CheckpointError(f"{path}: {self.name.removesuffix('.weight')}: {what}")


def expect(files: Files, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...], beside: str) -> None:
    """CheckpointError unless there is a tensor `name` of `shape` with one of `dtypes`; `beside`: one that there is."""
    tensor = files.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{files.tensors[beside].path}: has no tensor {name!r}: the checkpoint is incomplete")
    if tensor.dtype not in dtypes or tensor.shape != shape:
        has, needs = f"{tensor.dtype} {list(tensor.shape)}", f"{' or '.join(dtypes)} {list(shape)}"
        raise CheckpointError(
            f"{tensor.path}: tensor {name!r} is {has}, not {needs}: the checkpoint and its config.json do not fit"
        )


def matrix_shape(files: Files, name: str, beside: str) -> tuple[int, int]:
    """The shape of tensor `name`; CheckpointError unless it is there, a matrix, and not empty."""
    tensor = files.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2 or not all(tensor.shape):
        what = "is missing" if tensor is None else f"is no matrix, but {list(tensor.shape)}"
        raise CheckpointError(f"{files.tensors[beside].path}: tensor {name!r} {what}: the checkpoint is damaged")
    return tensor.shape[0], tensor.shape[1]


def survey(
    matrix: Packed,
    scales: F32Array,
    groups: npt.NDArray[np.intp],
    values: F32Array,
    offsets: F32Array | None = None,
) -> Survey:
    """The survey of a matrix with all its scales, and offsets, and all that its codes can stand for."""
    if not np.isfinite(scales).all():
        raise matrix.fail("a scale is not finite: the checkpoint is damaged")
    powers = bool((np.frexp(scales)[0] == 0.5).all() and (scales >= 2.0**-128).all())
    if offsets is None:
        return Survey(values, groups, f16_error(scales), powers)
    if not np.isfinite(offsets).all():
        raise matrix.fail("an offset is not finite: the checkpoint is damaged")
    return Survey(values, groups, max(f16_error(scales), f16_error(offsets)), powers, offset=True)


def integers(lowest: int, highest: int) -> F32Array:
    """f32 [highest - lowest + 1]: the values of integer codes."""
    return np.arange(lowest, highest + 1, dtype=np.float32)


def f16_error(scales: F32Array) -> float:
    """The largest relative error of f32 values rounded to f16; infinite if one does not fit."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        errors = np.abs(scales.astype(np.float16).astype(np.float32) - scales) / np.abs(scales)
    return float(np.where(scales == 0, 0, errors).max(initial=0.0))


def unpack(words: npt.NDArray[Any], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """u8 [..., count] of codes that follow one another in 32-bit words [..., n], the lowest bits first.

    A code may lie across two words, as those of 3 bits do.
    """
    words = np.ascontiguousarray(words).view(np.uint32)
    if bits == 8:
        return words.view(np.uint8)[..., :count]
    if bits == 4:
        pairs = words.view(np.uint8)
        return np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*pairs.shape[:-1], -1)[..., :count]
    places = np.arange(count) * bits
    first, shift = places // 32, (places % 32).astype(np.uint64)
    wide = np.concatenate([words, np.zeros((*words.shape[:-1], 1), np.uint32)], axis=-1).astype(np.uint64)
    both = wide[..., first] | wide[..., first + 1] << np.uint64(32)
    return (both >> shift & np.uint64((1 << bits) - 1)).astype(np.uint8)


class Scaled(Packed):
    """A matrix stored as 8-bit integers or floats, with scales f32 [block rows, block columns] of a grid over it.

    zeros: name of a tensor of zero points in the shape of the scales, "" if there is none; `factor` times what is
    stored is the scale; codes: where they lie, if not under `name`; bits: of codes that do not use all 8. Scales of
    bytes are exponents + 127.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        kind: str,
        scale: str,
        block: tuple[int, int],
        zeros: str = "",
        factor: float = 1.0,
        codes: str = "",
        bits: int = 8,
    ) -> None:
        self._codes = codes or name
        rows, columns = matrix_shape(files, self._codes, self._codes)
        stored = [self._codes, scale, *([zeros] if zeros else [])]
        super().__init__(files, name, kind, bits, (rows, columns), stored)
        self._scale, self._zeros, self._factor, self._block = scale, zeros, np.float32(factor), block
        self._grid = -(-rows // block[0]), -(-columns // block[1])
        self._groups = np.arange(columns) // block[1]
        for one, dtypes in ((scale, (*FLOATS, "U8")), *([(zeros, ("I8",))] if zeros else [])):
            tensor, (height, width) = files.tensors[one], self._grid
            if prod(tensor.shape) != height * width or tensor.dtype not in dtypes:
                raise self.fail(f"{one!r} is {tensor.dtype} {list(tensor.shape)}, not one of {height} x {width} blocks")

    def _scales(self) -> F32Array:
        stored = self.files.whole(self._scale).reshape(self._grid)
        dtype = self.files.tensors[self._scale].dtype
        scales: F32Array = to_f32(stored, "F8_E8M0" if dtype == "U8" else dtype) * self._factor
        return scales

    def _zero_points(self) -> npt.NDArray[np.int16]:
        return self.files.whole(self._zeros).astype(np.int16).reshape(self._grid)

    def rows(self, start: int, stop: int) -> Rows:
        of_row = np.arange(start, stop) // self._block[0]
        codes, dtype = self.files.rows(self._codes, start, stop), self.files.tensors[self._codes].dtype
        if dtype in FLOATS:
            codes = to_f32(codes, dtype)
        else:
            codes = codes.astype(np.int16)
            if self._zeros:
                apply_groups(np.subtract, codes, self._zero_points()[of_row], self._groups)
        return Rows(codes, self._scales()[of_row], self._groups)

    def survey(self) -> Survey:
        values = np.empty(0, np.float32)
        if self.files.tensors[self._codes].dtype not in FLOATS:
            zeros, half = self._zero_points() if self._zeros else np.zeros(1, np.int16), 1 << self.bits - 1
            values = integers(-half - int(zeros.max()), half - 1 - int(zeros.min()))
        return survey(self, self._scales(), self._groups, values)


def scaled_matrix(files: Files, name: str, kind: str) -> Scaled:
    """The matrix `NAME` of whole bytes with its `NAME_scale`, one, one for each row, or those of a grid whose blocks
    divide it, and `NAME_zero_point` if there is that."""
    (rows, columns), scale, zeros = matrix_shape(files, name, name), f"{name}_scale", f"{name}_zero_point"
    grid = files.tensors[scale].shape
    if len(grid) == 2 and all(grid):
        block = max(-(-rows // grid[0]), 1), max(-(-columns // grid[1]), 1)
    else:
        block = (1, columns) if grid == (rows,) and rows > 1 else (rows, columns)
    return Scaled(files, name, kind, scale, block, zeros if zeros in files.tensors else "")
