"""Checkpoints whose experts are MXFP4, as gpt-oss is published (OCP Microscaling Formats 1.0): floats of 4 bits (E2M1),
32 neighbouring columns sharing a power of two.

Per matrix of all experts' rows:

    NAME_blocks  U8 [experts, out, in / 32, 16]   two codes a byte, the low nibble first
    NAME_scales  U8 [experts, out, in / 32]       exponent + 127

weight = E2M1[code] * 2^(scale - 127). Here codes stand for twice that, which is an integer, and scales for half.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import GROUP, F32Array, Packed, Rows, Survey, expect, survey
from edgeq.errors import CheckpointError

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
ENDS = "_blocks"


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`: `NAME_blocks`, rows of all experts."""
    return [Mxfp4(files, name) for name in files.tensors if name.endswith(ENDS)]


class Mxfp4(Packed):
    """The matrices of all experts, one after the other, as one."""

    def __init__(self, files: Files, name: str) -> None:
        self._scale = f"{name.removesuffix(ENDS)}_scales"
        shape = files.tensors[name].shape
        if len(shape) < 3 or shape[-1] != GROUP // 2 or not all(shape):
            path = files.tensors[name].path
            raise CheckpointError(f"{path}: tensor {name!r} is {list(shape)}, not experts' rows of blocks of 16 bytes")
        self._experts, self._blocks = shape[0], shape[-2]
        rows = prod(shape[:-2])
        super().__init__(files, name, "MXFP4", 4, (rows, self._blocks * GROUP), [name, self._scale])
        expect(files, name, ("U8",), shape, name)
        expect(files, self._scale, ("U8",), shape[:-1], name)

    def rows(self, start: int, stop: int) -> Rows:
        each = self.shape[0] // self._experts
        first, last = start // each, -(-stop // each)
        cut = slice(start - first * each, stop - first * each)
        codes = nibbles(self.files.rows(self.name, first, last).reshape(-1, self.shape[1] // 2)[cut])
        scales = self.files.rows(self._scale, first, last).reshape(-1, self._blocks)[cut]
        return Rows(codes, half_power(scales), np.arange(self.shape[1]) // GROUP, 2 * E2M1)

    def survey(self) -> Survey:
        scales = half_power(np.unique(self.files.rows(self._scale, 0, self._experts)))  # which there are is enough
        return survey(self, scales, np.arange(self.shape[1]) // GROUP, 2 * E2M1)


def nibbles(pairs: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """u8 [rows, 2 n] of bytes [rows, n] of two codes, the low one first."""
    return np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(len(pairs), -1)


def half_power(scales: npt.NDArray[np.uint8]) -> F32Array:
    """f32 2^(scale - 128); 255 stands for no number."""
    return np.where(scales == 255, np.float32(np.nan), np.ldexp(np.float32(1), scales.astype(np.int32) - 128))
