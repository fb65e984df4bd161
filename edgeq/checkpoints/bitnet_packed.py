"""Checkpoints of BitNet whose weights are packed, as transformers has them: -1, 0 and 1, four to a byte.

Per matrix of `out` rows and `in` columns, row r in the bytes of row r % (out / 4):

    weight        U8 [out / 4, in]    weight + 1 in bits 2 i and 2 i + 1, where i = r / (out / 4)
    weight_scale  one BF16, F16 or F32

What the layer class `autobitlinear` computes is multiplied by the scale, what others do is divided by it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import F32Array, Packed, Rows, Survey, expect, integers, matrix_shape, survey
from edgeq.errors import UnsupportedError

PER_BYTE = 4


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`; none where weights are those from training,
    which the architecture rounds. UnsupportedError for norms inside linear layers."""
    if config.get("quantization_mode") == "online":
        return []
    if config.get("use_rms_norm"):
        raise UnsupportedError(f"{source}: BitNet layers with norms of their own (use_rms_norm) are not supported")
    inverse = config.get("linear_class") != "autobitlinear"
    ends = ".weight_scale"
    return [Ternary(files, name.removesuffix(ends), inverse) for name in files.tensors if name.endswith(ends)]


class Ternary(Packed):
    """One matrix; `inverse`: what is stored is one over the scale."""

    def __init__(self, files: Files, stem: str, inverse: bool) -> None:
        weight, scale = stored = [f"{stem}.weight", f"{stem}.weight_scale"]
        packed, columns = matrix_shape(files, weight, scale)
        super().__init__(files, weight, "BitNet", 2, (PER_BYTE * packed, columns), stored)
        expect(files, weight, ("U8",), (packed, columns), scale)
        expect(files, scale, ("BF16", "F16", "F32"), (1,), weight)
        self._inverse, self._groups = inverse, np.zeros(columns, np.intp)

    def _scale(self) -> F32Array:
        """f32 [1]."""
        stored: F32Array = self.files.floats(self.stored[1]).reshape(1)
        with np.errstate(divide="ignore"):
            return np.float32(1) / stored if self._inverse else stored

    def rows(self, start: int, stop: int) -> Rows:
        part, row = np.divmod(np.arange(start, stop), self.shape[0] // PER_BYTE)
        codes = self.files.whole(self.stored[0])[row] >> (2 * part).astype(np.uint8)[:, None] & 3
        scales = np.repeat(self._scale()[None], stop - start, axis=0)
        return Rows(codes.astype(np.int16) - np.int16(1), scales, self._groups)

    def survey(self) -> Survey:
        return survey(self, self._scale()[None], self._groups, integers(-1, 2))
