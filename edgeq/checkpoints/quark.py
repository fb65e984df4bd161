"""Checkpoints of AMD's Quark, `out` rows and `in` columns:

    weight             F8_E4M3 or I8 [out, in]; of MXFP4 U8 [out, in / 2], codes of E2M1, the low nibble first
    weight_scale       a float [1], [out] or [out, in / group]; of MXFP4 U8 [out, in / 32], exponents + 127
    weight_zero_point  I8 like the scales, or missing

and of integers of 4 bits in groups, 8 neighbouring rows in a word, its nibble i (the lowest first) that of row i, or of
AWQ's row ORDER[i] where config.json says `reorder`; `uint4` is from 0 to 15, `int4` from -8 to 7:

    weight             I32 [in, out / 8]
    weight_scale       a float [in / group, out]
    weight_zero_point  I32 [in / group, out / 8], or missing

weight = scale * (code - zero point). Others, and what versions before 1.0 wrote, are refused by name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints.awq import ORDER, PER_WORD, rows_of_words
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.four_bit_floats import FourBitFloats
from edgeq.checkpoints.packed import (
    GROUP,
    F32Array,
    Packed,
    Rows,
    Survey,
    apply_groups,
    expect,
    integers,
    matrix_shape,
    scaled_matrix,
    survey,
)
from edgeq.errors import UnsupportedError

METHOD = "Quark"
NARROW = {"F8_E4M3": "FP8", "I8": "INT8"}
PACKINGS = {"reorder": ORDER, "order": tuple(range(PER_WORD))}


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for other elements."""
    found: list[Packed] = []
    for name, tensor in files.tensors.items():
        scale = f"{name}_scale"
        if not name.endswith(".weight") or scale not in files.tensors:
            continue
        if tensor.dtype in NARROW:
            found.append(scaled_matrix(files, name, f"{METHOD} {NARROW[tensor.dtype]}"))
        elif tensor.dtype == "U8" and files.tensors[scale].dtype == "U8" and _element(config) == "fp4":
            found.append(FourBitFloats(files, name, METHOD, name, scale, GROUP))
        elif (order := _order(files, name, config)) is not None:
            found.append(Words(files, name, order, signed=_element(config) == "int4"))
        else:
            what = f"{name} is {tensor.dtype}, elements {_element(config)[:40] or 'unknown'}"
            known = "fp8_e4m3, int8, MXFP4 (fp4), and int4 and uint4 in groups (per_group)"
            raise UnsupportedError(f"{source}: {what}: Quark's {known} are supported")
    return found


def _order(files: Files, name: str, config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Which rows the nibbles of a word are of; None where they are none that are known here."""
    shape, scales = files.tensors[name].shape, files.tensors[f"{name}_scale"].shape
    written = _weights(config)
    export = config.get("export")
    packing = export.get("pack_method", "reorder") if isinstance(export, Mapping) else "reorder"
    if files.tensors[name].dtype != "I32" or _element(config) not in ("int4", "uint4"):
        return None
    turned = len(shape) == len(scales) == 2 and scales[1] == shape[1] * PER_WORD  # before 1.0 they were not
    return PACKINGS.get(str(packing)) if written.get("qscheme") == "per_group" and turned else None


def _weights(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of weights."""
    weight: Any = config.get("global_quant_config")
    weight = weight.get("weight") if isinstance(weight, Mapping) else None
    if isinstance(weight, list) and weight:
        weight = weight[0]
    return weight if isinstance(weight, Mapping) else {}


def _element(config: Mapping[str, Any]) -> str:
    """What config.json calls the elements of weights."""
    return str(_weights(config).get("dtype") or "")


class Words(Packed):
    """A matrix of integers of 4 bits in groups; `order`: which of 8 rows a nibble is of."""

    def __init__(self, files: Files, name: str, order: tuple[int, ...], signed: bool) -> None:
        self._scale, self._order, self._signed = f"{name}_scale", order, signed
        zeros = f"{name}_zero_point"
        self._zeros = zeros if zeros in files.tensors else ""
        columns, words = matrix_shape(files, name, name)
        groups, rows = matrix_shape(files, self._scale, name)
        stored = [name, self._scale, *([zeros] if self._zeros else [])]
        super().__init__(files, name, f"{METHOD} {'INT4' if signed else 'UINT4'}", 4, (rows, columns), stored)
        if columns % groups:
            raise self.fail(f"{columns} columns are not divided evenly by {groups} groups")
        expect(files, self._scale, ("F16", "BF16", "F32"), (groups, words * PER_WORD), name)
        if self._zeros:
            expect(files, zeros, ("I32",), (groups, words), name)
        self._groups = np.arange(columns) // (columns // groups)

    def _codes(self, words: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        codes: npt.NDArray[np.int16] = rows_of_words(words, self._order).astype(np.int16)
        return (codes ^ 8) - 8 if self._signed else codes

    def rows(self, start: int, stop: int) -> Rows:
        first, last = start // PER_WORD, -(-stop // PER_WORD)
        cut = slice(start - first * PER_WORD, stop - first * PER_WORD)
        codes = np.ascontiguousarray(self._codes(self.files.whole(self.name)[:, first:last])[cut])
        if self._zeros:
            zeros = self._codes(self.files.whole(self._zeros)[:, first:last])[cut]
            apply_groups(np.subtract, codes, zeros, self._groups)
        scales: F32Array = np.ascontiguousarray(self.files.floats(self._scale)[:, start:stop].T)
        return Rows(codes, scales, self._groups)

    def survey(self) -> Survey:
        zeros = self._codes(self.files.whole(self._zeros)) if self._zeros else np.zeros(1, np.int16)
        low, high = (-8, 7) if self._signed else (0, 15)
        values = integers(low - int(zeros.max()), high - int(zeros.min()))
        return survey(self, self.files.floats(self._scale), self._groups, values)
