"""Checkpoints of compressed-tensors, which llm-compressor writes (https://github.com/vllm-project/compressed-tensors).

Integers packed into words (`pack-quantized`), `out` rows and `in` columns:

    weight_packed      I32 [out, ceil(in * bits / 32)]  code + 2^(bits - 1), a row's codes in order, lowest bits first
    weight_scale       [out, groups], [out, 1] or [1]
    weight_zero_point  I32 [ceil(out * bits / 32), groups]: packed likewise along its columns; missing if symmetric
    weight_shape       [out, in]
    weight_g_idx       I32 [in]: the group of each column, if not in order

Floats of 4 bits (E2M1), two a byte, the low nibble first:

    weight_packed        U8 [out, in / 2]
    weight_scale         `mxfp4-pack-quantized`: U8 [out, in / 32], exponents + 127
                         `nvfp4-pack-quantized`: F8_E4M3 [out, in / 16], to be divided by
    weight_global_scale  F32 [1]

Others (`int-quantized`, `float-quantized`, `naive-quantized`): weight I8 or F8_E4M3 [out, in], weight_scale [out, 1],
[1], [out, groups] or a grid of blocks, weight_zero_point I8 like the scales. weight = scale * (code - zero point).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks import nvfp4
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.four_bit_floats import FourBitFloats, factor_in
from edgeq.checkpoints.packed import (
    GROUP,
    F32Array,
    Packed,
    Rows,
    Scaled,
    Survey,
    apply_groups,
    expect,
    integers,
    matrix_shape,
    survey,
    unpack,
)
from edgeq.checkpoints.stored import FLOATS
from edgeq.errors import UnsupportedError

METHOD = "compressed-tensors"
FORMATS = (
    *("pack-quantized", "int-quantized", "float-quantized", "naive-quantized"),
    *("nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision", "dense"),
)


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for another format."""
    _check(config, source)
    declared, found = _declared_bits(config), list[Packed]()
    for name, tensor in files.tensors.items():
        if name.endswith(".weight_packed") and tensor.dtype == "U8":
            found.append(_floats(files, name.removesuffix("_packed")))
        elif name.endswith(".weight_packed"):
            found.append(PackQuantized(files, name.removesuffix(".weight_packed"), declared, source))
        elif name.endswith(".weight") and tensor.dtype in ("I8", "F8_E4M3") and len(tensor.shape) == 2:
            found.append(_scaled(files, name, config, source))
    return found


def _floats(files: Files, weight: str) -> Packed:
    """A matrix of 4-bit floats; of NVFP4 with a scale of it all."""
    packed, scale, divisor = (f"{weight}_{part}" for part in ("packed", "scale", "global_scale"))
    if divisor not in files.tensors:
        return FourBitFloats(files, weight, METHOD, packed, scale, GROUP)
    over = factor_in(files, divisor, packed)
    return FourBitFloats(files, weight, METHOD, packed, scale, nvfp4.SHARING, over=over, others=(divisor,))


def _check(config: Mapping[str, Any], source: str) -> None:
    for layout in (config.get("format"), *(group.get("format") for group in _objects(config.get("config_groups")))):
        if layout not in (None, *FORMATS):
            raise UnsupportedError(
                f"{source}: weights in compressed-tensors' format {layout!r} are not supported; "
                f"{', '.join(FORMATS[:7])} are"
            )
    sparsity = config.get("sparsity_config") or {}
    if isinstance(sparsity, Mapping) and sparsity.get("format") not in (None, "dense"):
        raise UnsupportedError(f"{source}: compressed-tensors' sparse format {sparsity['format']!r} is not supported")
    transforms = config.get("transform_config") or {}
    if isinstance(transforms, Mapping) and transforms.get("config_groups"):
        raise UnsupportedError(f"{source}: weights that compressed-tensors transformed are not supported")


def _declared_bits(config: Mapping[str, Any]) -> list[int]:
    """The bits of integers that the configuration's groups name; none where it names none."""
    weights = [group.get("weights") for group in _objects(config.get("config_groups"))]
    bits = [one.get("num_bits") for one in weights if isinstance(one, Mapping) and one.get("type", "int") == "int"]
    return sorted({n for n in bits if type(n) is int})


def _objects(value: object) -> list[Mapping[str, Any]]:
    """The JSON objects among an object's values; none if it is no object."""
    return [one for one in value.values() if isinstance(one, Mapping)] if isinstance(value, Mapping) else []


def _scaled(files: Files, name: str, config: Mapping[str, Any], source: str) -> Packed:
    """A matrix of whole bytes."""
    scale, zeros = f"{name}_scale", f"{name}_zero_point"
    if scale not in files.tensors:
        raise UnsupportedError(f"{source}: tensor {name!r} has no {scale!r}: other layouts are not supported")
    (rows, columns), grid = matrix_shape(files, name, name), files.tensors[scale].shape
    if len(grid) != 2 or not all(grid):
        block = (1, columns) if grid == (rows,) and rows > 1 else (rows, columns)
    else:
        block = _blocks(files, name, config, source) or (max(rows // grid[0], 1), max(columns // grid[1], 1))
    kind = f"compressed-tensors {'FP8' if files.tensors[name].dtype == 'F8_E4M3' else 'INT8'}"
    return Scaled(files, name, kind, scale, block, zeros if zeros in files.tensors else "")


def _blocks(files: Files, name: str, config: Mapping[str, Any], source: str) -> tuple[int, int] | None:
    """The size of a block where a group of the configuration has blocks whose grid is this matrix's scales'."""
    rows, columns = files.tensors[name].shape
    for group in _objects(config.get("config_groups")):
        block = next((part.get("block_structure") for part in _objects({"": group.get("weights")})), None)
        if isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block):
            height, width = block
            if files.tensors[f"{name}_scale"].shape == (-(-rows // height), -(-columns // width)):
                return height, width
    return None


class PackQuantized(Packed):
    """A matrix of packed integers of 2 to 8 bits."""

    def __init__(self, files: Files, stem: str, declared: list[int], source: str) -> None:
        """declared: bits that its codes may have, in ascending order; none if they are to be told by its shape."""
        self._weight, self._scale = f"{stem}.weight_packed", f"{stem}.weight_scale"
        shape, zeros, index = f"{stem}.weight_shape", f"{stem}.weight_zero_point", f"{stem}.weight_g_idx"
        self._zeros, self._index = (name if name in files.tensors else "" for name in (zeros, index))
        expect(files, shape, ("I64", "I32"), (2,), self._weight)
        rows, columns = (int(n) for n in files.whole(shape))
        _, words = matrix_shape(files, self._weight, self._weight)
        told = words * 32 // max(columns, 1)
        bits = next((bits for bits in declared if words == -(-columns * bits // 32)), told)
        optional = [name for name in (self._zeros, self._index) if name]
        stored = [self._weight, self._scale, shape, *optional]
        super().__init__(files, f"{stem}.weight", f"compressed-tensors INT{bits}", bits, (rows, columns), stored)
        if not 2 <= bits <= 8 or words != -(-columns * bits // 32):
            raise UnsupportedError(f"{source}: {stem} has {words} words for {columns} codes: a packing that is unknown")
        if declared and bits not in declared:
            says = " or ".join(map(str, declared))
            raise self.fail(
                f"has codes of {bits} bits, config.json says {says}: take the one that belongs to the weights"
            )
        expect(files, self._weight, ("I32",), (rows, words), self._weight)
        grid = files.tensors[self._scale].shape if self._scale in files.tensors else ()
        self._grid = (grid[0], grid[1]) if len(grid) == 2 else ((rows, 1) if grid == (rows,) and rows > 1 else (1, 1))
        if self._grid[0] not in (1, rows) or not self._grid[1] or columns % self._grid[1]:
            raise self.fail(f"scales {list(grid)} do not divide a matrix {[rows, columns]}")
        expect(files, self._scale, FLOATS, self._grid if len(grid) == 2 else self._grid[:1], self._weight)
        if self._index:
            expect(files, self._index, ("I32", "I64"), (columns,), self._weight)
        if self._zeros:
            packed = files.tensors[self._zeros].dtype != "I8"
            height = -(-rows * bits // 32) if packed else self._grid[0]
            expect(files, self._zeros, ("I32", "I8"), (height, self._grid[1]), self._weight)

    def _groups(self) -> npt.NDArray[np.intp]:
        """The group of each column."""
        columns, count = self.shape[1], self._grid[1]
        if not self._index:
            return np.arange(columns) // (columns // count)
        groups = self.files.whole(self._index).astype(np.intp)
        if groups.min() < 0 or groups.max() >= count:
            raise self.fail(f"columns have groups {groups.min()} to {groups.max()}, there are {count}")
        return groups

    def _zero_points(self) -> npt.NDArray[np.int16]:
        """i16 [rows or 1, groups], 0 if symmetric."""
        if not self._zeros:
            return np.zeros((1, 1), np.int16)
        zeros = self.files.whole(self._zeros)
        if zeros.dtype == np.int8:
            return zeros.reshape(self._grid).astype(np.int16)
        return unpack(zeros.T, self.bits, self.shape[0]).T.astype(np.int16) - np.int16(1 << self.bits - 1)

    def rows(self, start: int, stop: int) -> Rows:
        words = self.files.rows(self._weight, start, stop)
        codes = unpack(words, self.bits, self.shape[1]).astype(np.int16) - np.int16(1 << self.bits - 1)
        groups, zeros = self._groups(), self._zero_points()
        if self._zeros:
            zeros = np.broadcast_to(zeros, (self.shape[0], self._grid[1]))[start:stop]
            apply_groups(np.subtract, codes, zeros, groups)
        return Rows(codes, np.ascontiguousarray(self._scales()[start:stop]), groups)

    def _scales(self) -> F32Array:
        """f32 [rows, groups]."""
        scales: F32Array = self.files.floats(self._scale).reshape(self._grid)
        return np.broadcast_to(scales, (self.shape[0], self._grid[1]))

    def survey(self) -> Survey:
        zeros, half = self._zero_points(), 1 << self.bits - 1
        values = integers(-half - int(zeros.max()), half - 1 - int(zeros.min()))
        return survey(self, self._scales(), self._groups(), values)
