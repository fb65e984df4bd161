"""GPTQ checkpoints, as AutoGPTQ and GPTQModel write them (arXiv:2210.17323).

Per matrix of `out` rows and `in` columns, in 32-bit words whose lowest bits come first:

    qweight  I32 [in * bits / 32, out]    a word holds codes of one row of the weights, column after column
    qzeros   I32 [groups, out * bits / 32] a word holds zero points of neighbouring rows
    scales   F16 or BF16 [groups, out]
    g_idx    I32 [in]                     the group of each column, in any order with desc_act

weight = scale * (code - zero). The format `gptq` (v1) stores zero - 1, modulo 2^bits; `gptq_v2` stores zero.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import (
    F32Array,
    Packed,
    Rows,
    Survey,
    apply_groups,
    expect,
    integers,
    matrix_shape,
    survey,
    unpack,
)
from edgeq.errors import UnsupportedError

FORMATS = ("gptq", "gptq_v2")
BITS = (2, 3, 4, 8)


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for another layout."""
    layout = config.get("checkpoint_format") or config.get("format") or "gptq"
    if config.get("is_marlin_format"):
        layout = "marlin"
    if layout not in FORMATS:
        raise UnsupportedError(
            f"{source}: GPTQ weights in the format {layout!r}, made for one kernel, are not supported: take a "
            f"checkpoint in the format {' or '.join(map(repr, FORMATS))}"
        )
    ends = ".qweight"
    stems = [name.removesuffix(ends) for name in files.tensors if name.endswith(ends)]
    return [Gptq(files, stem, config, layout == "gptq", source) for stem in stems]


class Gptq(Packed):
    """One matrix. Its shapes tell bits and groups, as these may differ from matrix to matrix."""

    def __init__(self, files: Files, stem: str, config: Mapping[str, Any], minus_one: bool, source: str) -> None:
        stored = [f"{stem}.{part}" for part in ("qweight", "qzeros", "scales")]
        self._weight, self._zeros, self._scales = stored
        self._index = f"{stem}.g_idx" if f"{stem}.g_idx" in files.tensors else ""
        words, rows = matrix_shape(files, self._weight, self._weight)
        groups, zero_words = matrix_shape(files, self._zeros, self._weight)
        bits = zero_words * 32 // rows
        columns = words * 32 // bits if bits in BITS else 0
        if not columns or words * 32 != columns * bits:
            raise UnsupportedError(f"{source}: {stem} has GPTQ codes of {bits} bits; 2, 3, 4 and 8 are supported")
        stored += [self._index] if self._index else []
        super().__init__(files, f"{stem}.weight", f"GPTQ {bits}-bit", bits, (rows, columns), stored)
        expect(files, self._weight, ("I32", "U32"), (words, rows), self._weight)
        expect(files, self._zeros, ("I32", "U32"), (groups, zero_words), self._weight)
        expect(files, self._scales, ("F16", "BF16", "F32"), (groups, rows), self._weight)
        if self._index:
            expect(files, self._index, ("I32", "I64"), (columns,), self._weight)
        self._minus_one = minus_one
        size = config.get("group_size")
        if columns % groups == 0:
            size = columns // groups
        self._group_size = size if isinstance(size, int) and size > 0 else columns

    def _groups(self) -> npt.NDArray[np.intp]:
        """The group of each column."""
        columns, count = self.shape[1], self.files.tensors[self._scales].shape[0]
        groups = np.arange(columns) // self._group_size
        if self._index:
            groups = self.files.whole(self._index).astype(np.intp)
        if columns and not (groups.min() >= 0 and groups.max() < count):
            raise self.fail(f"columns are of groups {groups.min()} to {groups.max()}, there are {count}")
        return groups

    def _zero_points(self) -> npt.NDArray[np.uint8]:
        """u8 [groups, rows]."""
        zeros = unpack(self.files.whole(self._zeros), self.bits, self.shape[0])
        return zeros + np.uint8(1) & np.uint8((1 << self.bits) - 1) if self._minus_one else zeros

    def rows(self, start: int, stop: int) -> Rows:
        words = self.files.whole(self._weight)[:, start:stop].T
        codes = unpack(words, self.bits, self.shape[1]).astype(np.int16)
        zeros, groups = np.ascontiguousarray(self._zero_points()[:, start:stop].T), self._groups()
        apply_groups(np.subtract, codes, zeros, groups)
        scales: F32Array = np.ascontiguousarray(self.files.floats(self._scales)[:, start:stop].T)
        return Rows(codes, scales, groups)

    def survey(self) -> Survey:
        zeros, top = self._zero_points(), (1 << self.bits) - 1
        values = integers(-int(zeros.max()), top - int(zeros.min()))
        return survey(self, self.files.floats(self._scales), self._groups(), values)
