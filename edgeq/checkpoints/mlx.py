"""Checkpoints of mlx-lm: affine codes of 2 to 8 bits, MXFP4, MXFP8 or NVFP4, as `mlx.core.quantize` makes them.

Per matrix of `out` rows and `in` columns:

    weight  U32 [out, in * bits / 32]   codes that follow one another, the lowest bits first
    scales  F16, BF16 or F32 [out, in / group_size]; of MXFP4 and MXFP8 U8 [out, in / 32],
            exponent + 127; of NVFP4 U8 [out, in / 16], the bits of E4M3
    biases  like scales; others than affine have none

weight = scale * code + bias, or E2M1[code] or E4M3[code] times 2^(scale - 127), or the scale. config.json says
`quantization`: bits, group_size, mode, and others of these for a matrix by its name; a matrix without scales is not
quantized. Experts, which are stacked, come one by one: see experts_apart.py.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.blocks import nvfp4
from edgeq.checkpoints.experts_apart import stack_of
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.four_bit_floats import FourBitFloats
from edgeq.checkpoints.packed import (
    GROUP,
    Packed,
    Rows,
    Survey,
    expect,
    integers,
    matrix_shape,
    survey,
    unpack,
)
from edgeq.checkpoints.stored import to_f32
from edgeq.errors import UnsupportedError

BITS = (2, 3, 4, 5, 6, 8)
MODES = ("affine", "mxfp4", "nvfp4", "mxfp8")
FLOATS = ("F16", "BF16", "F32")


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization` `config`. UnsupportedError for another mode, or bits."""
    found: list[Packed] = []
    for name in files.tensors:
        stem = name.removesuffix(".scales")
        if stem == name or f"{stem}.weight" not in files.tensors:
            continue
        own = config.get(stem, config.get(stack_of(stem)))
        settings = {**config, **own} if isinstance(own, Mapping) else config
        mode, bits = settings.get("mode", "affine"), settings.get("bits", 4)
        if mode not in MODES or (mode == "affine" and bits not in BITS):
            raise UnsupportedError(
                f"{source}: {stem}: MLX's mode {mode!r} of {bits!r} bits is not supported: take a checkpoint in one of "
                f"{', '.join(MODES)}, of 2 to 8 bits, or the original"
            )
        if mode == "affine":
            found.append(Affine(files, stem, bits))
            continue
        if mode == "mxfp8":
            found.append(EightBitFloats(files, stem))
            continue
        group = nvfp4.SHARING if mode == "nvfp4" else GROUP
        found.append(FourBitFloats(files, f"{stem}.weight", "MLX", f"{stem}.weight", name, group))
    return found


class Affine(Packed):
    """A matrix of codes that stand for multiples of a scale above a bias. Groups are as many as there are scales."""

    def __init__(self, files: Files, stem: str, bits: int) -> None:
        weight, scales, biases = stored = [f"{stem}.{part}" for part in ("weight", "scales", "biases")]
        rows, words = matrix_shape(files, weight, scales)
        _, groups = matrix_shape(files, scales, weight)
        columns = words * 32 // bits
        super().__init__(files, weight, f"MLX {bits}-bit", bits, (rows, columns), stored)
        if words * 32 % bits or columns % groups:
            raise self.fail(f"{words} words of {bits}-bit codes are no rows of {groups} groups of columns")
        expect(files, weight, ("U32", "I32"), (rows, words), scales)
        for one in (scales, biases):
            expect(files, one, FLOATS, (rows, groups), weight)
        self._groups = np.arange(columns) // (columns // groups)

    def rows(self, start: int, stop: int) -> Rows:
        weight, scales, biases = self.stored
        words = self.files.rows(weight, start, stop)
        codes = unpack(words, self.bits, self.shape[1]).astype(np.int16)
        read = self.files.float_rows
        return Rows(codes, read(scales, start, stop), self._groups, offsets=read(biases, start, stop))

    def survey(self) -> Survey:
        _, scales, biases = self.stored
        values = integers(0, (1 << self.bits) - 1)
        return survey(self, self.files.floats(scales), self._groups, values, self.files.floats(biases))


class EightBitFloats(Packed):
    """A matrix of 8-bit floats (MXFP8), of which 32 neighbours share a power of two."""

    def __init__(self, files: Files, stem: str) -> None:
        weight, scales = stored = [f"{stem}.{part}" for part in ("weight", "scales")]
        rows, words = matrix_shape(files, weight, scales)
        columns = words * 4
        super().__init__(files, weight, "MLX MXFP8", 8, (rows, columns), stored)
        if columns % GROUP:
            raise self.fail(f"{columns} columns are no groups of {GROUP}")
        expect(files, weight, ("U32", "I32"), (rows, words), scales)
        expect(files, scales, ("U8",), (rows, columns // GROUP), weight)
        self._groups = np.arange(columns) // GROUP

    def rows(self, start: int, stop: int) -> Rows:
        weight, scales = self.stored
        codes = to_f32(self.files.rows(weight, start, stop).view(np.uint8), "F8_E4M3")
        return Rows(codes, to_f32(self.files.rows(scales, start, stop), "F8_E8M0"), self._groups)

    def survey(self) -> Survey:
        scales = to_f32(np.unique(self.files.whole(self.stored[1])), "F8_E8M0")
        return survey(self, scales, self._groups, np.empty(0, np.float32))
