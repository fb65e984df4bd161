"""AWQ checkpoints in AutoAWQ's packings `gemm` and `gemv` (arXiv:2306.00978).

Per matrix of `out` rows and `in` columns, 4 bits per code; a 32-bit word holds 8 neighbouring rows, its nibble i (the
lowest first) that of row ORDER[i]:

    qweight  I32 [in, out / 8]
    qzeros   I32 [in / group_size, out / 8]
    scales   F16 [in / group_size, out]

and in `gemv` 8 neighbouring columns, or groups, in their order, of groups as many as fill whole words or more:

    qweight  I32 [out, in / 8]
    qzeros   I32 [out, words]
    scales   F16 [out, 8 * words]

weight = scale * (code - zero).
"""

from collections.abc import Mapping, Sequence
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
from edgeq.errors import CheckpointError, UnsupportedError

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PER_WORD = len(ORDER)


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for another packing."""
    layout = str(config.get("checkpoint_format") or config.get("version") or config.get("format") or "gemm").lower()
    bits = config.get("bits", config.get("w_bit", 4))
    if layout not in ("gemm", "gemv") or bits != 4:
        raise UnsupportedError(
            f"{source}: AWQ weights of {bits} bits in the packing {layout!r} are not supported: take a checkpoint of "
            "4 bits in the packing 'gemm' or 'gemv'"
        )
    ends = ".qweight"
    if layout == "gemv":
        size = config.get("group_size", config.get("q_group_size"))
        if type(size) is not int or not (size == -1 or size > 0):
            raise CheckpointError(f"{source}: config.json: group_size {size!r} is no size of a group")
        return [AwqRows(files, name.removesuffix(ends), size) for name in files.tensors if name.endswith(ends)]
    return [Awq(files, name.removesuffix(ends)) for name in files.tensors if name.endswith(ends)]


class Awq(Packed):
    """One matrix."""

    def __init__(self, files: Files, stem: str) -> None:
        stored = [f"{stem}.{part}" for part in ("qweight", "qzeros", "scales")]
        self._weight, self._zeros, self._scales = stored
        columns, words = matrix_shape(files, self._weight, self._weight)
        groups, _ = matrix_shape(files, self._scales, self._weight)
        rows = words * PER_WORD
        super().__init__(files, f"{stem}.weight", "AWQ 4-bit", 4, (rows, columns), stored)
        if columns % groups:
            raise self.fail(f"{columns} columns are not divided evenly by {groups} groups")
        expect(files, self._weight, ("I32", "U32"), (columns, words), self._weight)
        expect(files, self._scales, ("F16", "BF16", "F32"), (groups, rows), self._weight)
        expect(files, self._zeros, ("I32", "U32"), (groups, words), self._weight)
        self._groups = np.arange(columns) // (columns // groups)

    def rows(self, start: int, stop: int) -> Rows:
        first, last = start // PER_WORD, -(-stop // PER_WORD)
        cut = slice(start - first * PER_WORD, stop - first * PER_WORD)
        codes = rows_of_words(self.files.whole(self._weight)[:, first:last])[cut].astype(np.int16)
        zeros = rows_of_words(self.files.whole(self._zeros)[:, first:last])[cut]
        apply_groups(np.subtract, codes, zeros, self._groups)
        scales: F32Array = np.ascontiguousarray(self.files.floats(self._scales)[:, start:stop].T)
        return Rows(codes, scales, self._groups)

    def survey(self) -> Survey:
        zeros = rows_of_words(self.files.whole(self._zeros))
        values = integers(-int(zeros.max()), 15 - int(zeros.min()))
        return survey(self, self.files.floats(self._scales), self._groups, values)


class AwqRows(Packed):
    """One matrix in the packing `gemv`, with groups of so many columns, -1 for all."""

    def __init__(self, files: Files, stem: str, size: int) -> None:
        stored = [f"{stem}.{part}" for part in ("qweight", "qzeros", "scales")]
        self._weight, self._zeros, self._scales = stored
        rows, words = matrix_shape(files, self._weight, self._weight)
        _, zeros = matrix_shape(files, self._zeros, self._weight)
        columns = words * PER_WORD
        super().__init__(files, f"{stem}.weight", "AWQ 4-bit", 4, (rows, columns), stored)
        size = columns if size == -1 else size
        self._count = columns // size
        if columns % size or zeros * PER_WORD < self._count:
            raise self.fail(f"{columns} columns are no {zeros * PER_WORD} groups of {size}, as config.json says")
        expect(files, self._weight, ("I32", "U32"), (rows, words), self._weight)
        expect(files, self._zeros, ("I32", "U32"), (rows, zeros), self._weight)
        expect(files, self._scales, ("F16", "BF16", "F32"), (rows, zeros * PER_WORD), self._weight)
        self._groups = np.arange(columns) // size

    def rows(self, start: int, stop: int) -> Rows:
        codes = unpack(self.files.rows(self._weight, start, stop), 4, self.shape[1]).astype(np.int16)
        zeros = unpack(self.files.rows(self._zeros, start, stop), 4, self._count)
        apply_groups(np.subtract, codes, zeros, self._groups)
        scales = self.files.float_rows(self._scales, start, stop)[:, : self._count]
        return Rows(codes, np.ascontiguousarray(scales), self._groups)

    def survey(self) -> Survey:
        zeros = unpack(self.files.whole(self._zeros), 4, self._count)
        values = integers(-int(zeros.max()), 15 - int(zeros.min()))
        return survey(self, self.files.floats(self._scales)[:, : self._count], self._groups, values)


def rows_of_words(words: npt.NDArray[Any], order: Sequence[int] = ORDER) -> npt.NDArray[np.uint8]:
    """u8 [8 * m, n] of words [n, m]: the codes of each row of the weights; nibble i is that of row order[i] of 8."""
    turned = np.ascontiguousarray(words.T).view(np.uint32)
    codes = np.empty((len(turned), PER_WORD, turned.shape[1]), np.uint8)
    for nibble, row in enumerate(order):
        codes[:, row] = turned >> 4 * nibble & 15
    return codes.reshape(-1, turned.shape[1])
