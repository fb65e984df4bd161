"""Matrices of 4-bit floats (E2M1), two a byte, the low nibble first, as several methods store them.

32 neighbours share a power of two, an exponent + 127 in a byte (MXFP4), or 16 an 8-bit float (E4M3) and all of the
matrix a factor (NVFP4). Codes stand for twice their value here, which is an integer, and scales for half.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks import nvfp4
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.mxfp4 import E2M1, half_power, nibbles
from edgeq.checkpoints.packed import GROUP, F32Array, Packed, Rows, Survey, expect, matrix_shape, survey
from edgeq.checkpoints.stored import to_f32

BYTES, WORDS = ("U8",), ("U32", "I32")
KINDS = {16: "NVFP4", GROUP: "MXFP4"}  # by the columns that share a scale


class FourBitFloats(Packed):
    """One matrix, stored in bytes or words of codes, and a scale of every `group` columns; of NVFP4 times `times` and
    divided by `over`."""

    def __init__(
        self,
        files: Files,
        name: str,
        method: str,
        weight: str,
        scale: str,
        group: int,
        times: float = 1.0,
        over: float = 1.0,
        others: tuple[str, ...] = (),
    ) -> None:
        """`others`: further tensors that it is stored in."""
        rows, width = matrix_shape(files, weight, scale)
        columns = width * (8 if files.tensors[weight].dtype in WORDS else 2)
        kind = f"{method} {KINDS[group]}"
        super().__init__(files, name, kind, 4, (rows, columns), [weight, scale, *others])
        self._weight, self._scale, self._group = weight, scale, group
        if columns % group:
            raise self.fail(f"{columns} columns are no groups of {group}")
        dtypes = ("U8", "F8_E4M3" if group == nvfp4.SHARING else "F8_E8M0")
        expect(files, weight, (*BYTES, *WORDS), (rows, width), scale)
        expect(files, scale, dtypes, (rows, columns // group), weight)
        with np.errstate(divide="ignore"):  # the survey refuses what is not finite
            self._times, self._over = np.float32(times), np.float32(2 * over)
            self._factor = float(self._times / self._over)

    def _of(self, stored: npt.NDArray[Any]) -> F32Array:
        """f32 halves of scales as they are stored."""
        if self._group == GROUP:
            return half_power(stored.view(np.uint8))
        with np.errstate(divide="ignore", invalid="ignore"):
            scales: F32Array = to_f32(stored, "F8_E4M3") * self._times / self._over
        return scales

    def rows(self, start: int, stop: int) -> Rows:
        codes = nibbles(self.files.rows(self._weight, start, stop).view(np.uint8))
        scales = self._of(self.files.rows(self._scale, start, stop))
        factor = None if self._group == GROUP else self._factor
        return Rows(codes, scales, self._groups(), 2 * E2M1, factor=factor)

    def survey(self) -> Survey:
        stored = self.files.whole(self._scale)
        if self._group == GROUP:
            return survey(self, half_power(np.unique(stored.view(np.uint8))), self._groups(), 2 * E2M1)
        found = survey(self, self._of(stored), self._groups(), 2 * E2M1)
        return found.of_small(nvfp4.rounded(to_f32(stored, "F8_E4M3"), np.full(1, self._factor, np.float32)))

    def _groups(self) -> npt.NDArray[np.intp]:
        return np.arange(self.shape[1]) // self._group


def factor_in(files: Files, name: str, beside: str) -> float:
    """The one number in tensor `name`,. CheckpointError if it is not there."""
    expect(files, name, ("F32",), (1,), beside)
    return float(files.floats(name)[0])
