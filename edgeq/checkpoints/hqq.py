"""HQQ's checkpoints as transformers 4 saves them, per matrix of `out` rows and `in` columns:

    W_q             codes of [out * in / group, group] (axis 1) or [group, out * in / group] (axis 0), the flattened
                    weight in a matrix of groups, whose rows lie beside one another, all first parts of words before all
                    second ones: U8, or a float's bytes; of 3 bits I32 of ten codes, the first in the highest bits
    scale, zero     F16, BF16 or F32, of each group
    nbits, group_size, axis, shape, packing ...  I32, I64 and the bytes of text

weight = (code - zero) * scale.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import F32Array, Packed, Rows, Survey, integers, survey
from edgeq.checkpoints.stored import ELEMENTS, FLOATS
from edgeq.errors import UnsupportedError

CODES = ".W_q"
BITS = {8: 8, 4: 8, 3: 30, 2: 8, 1: 8}  # of a code -> of what several of them lie in


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for scales that are quantized,
    and other numbers of bits."""
    return [Hqq(files, name.removesuffix(CODES), source) for name in files.tensors if name.endswith(CODES)]


class Hqq(Packed):
    """One matrix."""

    def __init__(self, files: Files, stem: str, source: str) -> None:
        stored = sorted(name for name in files.tensors if name.startswith(f"{stem}.") and name != f"{stem}.bias")
        self._codes, self._scale, self._zero = (f"{stem}.{part}" for part in ("W_q", "scale", "zero"))
        super().__init__(files, f"{stem}.weight", "HQQ", 0, (0, 0), stored)
        if missing := [one for one in ("scale", "zero", "nbits", "shape", "axis") if f"{stem}.{one}" not in stored]:
            what = f"has no {missing[0]!r}: weights without it, or with scales that are quantized"
            raise UnsupportedError(f"{source}: {stem} {what}, are not supported")
        self.bits, axis = self._number("nbits"), self._number("axis")
        shape = files.whole(f"{stem}.shape").reshape(-1)
        if self.bits not in BITS or axis not in (0, 1):
            raise UnsupportedError(f"{source}: {stem}: HQQ of {self.bits} bits along axis {axis} is not supported")
        if shape.dtype.kind not in "iu" or len(shape) != 2 or not all(0 < int(n) < 1 << 31 for n in shape):
            raise self.fail(f"its shape is {shape.tolist()[:4]}")
        self.kind, self.shape = f"HQQ {self.bits}-bit", (int(shape[0]), int(shape[1]))
        scales = files.tensors[self._scale]
        rows, columns = self.shape
        count = prod(scales.shape)
        whole = count > 0 and rows * columns % count == 0 and (axis == 0 or columns % (rows * columns // count) == 0)
        for one in (self._scale, self._zero):
            if files.tensors[one].dtype not in FLOATS or files.tensors[one].shape != scales.shape or not whole:
                raise self.fail(f"{one!r} is {files.tensors[one].dtype} {list(files.tensors[one].shape)}")
        self._axis, self._groups = axis, count
        self._width = count if axis == 0 else rows * columns // count  # of a row of the matrix of groups
        codes, height = files.tensors[self._codes], rows * columns // self._width
        several, unit = BITS[self.bits] // self.bits, 4 if self.bits == 3 else 1
        nbytes = ELEMENTS[codes.dtype].itemsize * prod(codes.shape) if codes.dtype in ELEMENTS else 0
        if nbytes != unit * -(-height // several) * self._width:
            raise self.fail(f"{self._codes!r} is {codes.dtype} {list(codes.shape)}, no codes of {list(self.shape)}")

    def _number(self, part: str) -> int:
        values = self.files.whole(f"{self.name.removesuffix('weight')}{part}").reshape(-1)
        if len(values) != 1 or values.dtype.kind not in "iu":
            raise self.fail(f"its {part!r} is no whole number")
        return int(values[0])

    def _flat(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Codes u8 of the flattened weight, from one place to another."""
        first, last = start // self._width, -(-stop // self._width)
        wide = BITS[self.bits]
        height = -(-self.shape[0] * self.shape[1] // self._width // (wide // self.bits))
        stored = self.files.whole(self._codes)
        words = np.ascontiguousarray(stored).view(np.uint32 if wide == 30 else np.uint8).reshape(height, self._width)
        part, row = np.divmod(np.arange(first, last), height)
        shifts = (wide - self.bits - self.bits * part).astype(words.dtype)
        codes: npt.NDArray[np.uint8] = (words[row] >> shifts[:, None]).astype(np.uint8) & np.uint8((1 << self.bits) - 1)
        return codes.reshape(-1)[start - first * self._width : stop - first * self._width]

    def _of_groups(self, name: str, start: int, stop: int) -> F32Array:
        """f32 [rows, groups] of rows `start` to `stop`: of every column its own where groups lie across rows."""
        values: F32Array = self.files.floats(name).reshape(-1)
        columns = self.shape[1]
        if self._axis == 1:
            return values.reshape(self.shape[0], -1)[start:stop]
        return values[np.arange(start * columns, stop * columns) % self._groups].reshape(-1, columns)

    def _columns(self) -> npt.NDArray[np.intp]:
        """The group of each column."""
        return np.arange(self.shape[1]) // (1 if self._axis == 0 else self._width)

    def rows(self, start: int, stop: int) -> Rows:
        codes = self._flat(start * self.shape[1], stop * self.shape[1]).reshape(stop - start, -1)
        scales, zeros = (self._of_groups(name, start, stop) for name in (self._scale, self._zero))
        return Rows(codes.astype(np.int16), scales, self._columns(), offsets=-zeros * scales)

    def survey(self) -> Survey:
        scales: F32Array = self.files.floats(self._scale).reshape(-1)
        zeros: F32Array = self.files.floats(self._zero).reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            return survey(self, scales, self._columns(), integers(0, (1 << self.bits) - 1), -zeros * scales)
