"""Gemma's checkpoints that were trained for 2, 4 or 8 bits (quant_method `gemma`), `out` rows and `in` columns:

    weight               U8 [out, ceil(in * bits / 8)]  code + 2^(bits - 1), lowest bits first; I8 [out, in] for 8 bits
    weight_scale         F32 [out, 1]
    embedding_quantized  of an embedding the same, with
    embedding_scale      F32 [out, groups]

weight = scale * code. config.json says the bits: `num_bits`, or for modules whose names a pattern of
`module_quant_configs` is found in its own. Scales of activations and of the cache lie beside; here these are rounded in
another way.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import F32Array, Packed, Rows, Survey, integers, matrix_shape, survey
from edgeq.checkpoints.stored import FLOATS
from edgeq.errors import CheckpointError

PARTS = {".weight": ".weight_scale", ".embedding_quantized": ".embedding_scale"}
BESIDE = ("input_activation_scale", "output_activation_scale")


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`."""
    found: list[Packed] = []
    for name, tensor in files.tensors.items():
        for part, scale in PARTS.items():
            module = name.removesuffix(part)
            if name.endswith(part) and tensor.dtype in ("U8", "I8") and module + scale in files.tensors:
                bits = 8 if tensor.dtype == "I8" else _bits(config, module, source)
                found.append(GemmaPacked(files, name, module, module + scale, bits))
    return found


def _bits(config: Mapping[str, Any], module: str, source: str) -> int:
    """Those of the packed matrix of a module: of the first pattern that is found furthest to the left in its name."""
    patterns = config.get("module_quant_configs") or {}
    places = []
    for order, (pattern, options) in enumerate(patterns.items() if isinstance(patterns, Mapping) else ()):
        try:
            hit = re.search(pattern, module)
        except re.error:
            raise CheckpointError(f"{source}: config.json: {pattern!r} is no regular expression") from None
        if hit and isinstance(options, Mapping):
            places.append((hit.start(), order, options.get("num_bits")))
    bits = min(places)[2] if places else None
    bits = config.get("num_bits", 4) if bits is None else bits
    if bits not in (2, 4):
        raise CheckpointError(f"{source}: config.json: num_bits of {module} is {bits!r}, its matrix has 2 or 4")
    return int(bits)


class GemmaPacked(Packed):
    """A matrix of such a checkpoint."""

    def __init__(self, files: Files, stored: str, module: str, scale: str, bits: int) -> None:
        rows, nbytes = matrix_shape(files, stored, stored)
        shape = rows, nbytes * 8 // bits
        beside = [f"{module}.{part}" for part in BESIDE if f"{module}.{part}" in files.tensors]
        super().__init__(files, f"{module}.weight", f"Gemma {bits}-bit", bits, shape, [stored, scale, *beside])
        self._codes, self._scale = stored, scale
        tensor = files.tensors[scale]
        groups = tensor.shape[-1] if len(tensor.shape) == 2 else 1
        if tensor.dtype not in FLOATS or tensor.shape != (rows, groups) or not groups or shape[1] % groups:
            raise self.fail(f"{scale!r} is {tensor.dtype} {list(tensor.shape)}, not scales of {rows} rows")
        self._groups = np.arange(shape[1]) // (shape[1] // groups)

    def rows(self, start: int, stop: int) -> Rows:
        packed = self.files.rows(self._codes, start, stop)
        if self.bits == 8:
            codes = packed.astype(np.int16)
        else:
            shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
            several = packed[:, :, None] >> shifts & np.uint8((1 << self.bits) - 1)
            codes = several.reshape(len(packed), -1).astype(np.int16) - np.int16(1 << self.bits - 1)
        return Rows(codes, self._scales()[start:stop], self._groups)

    def survey(self) -> Survey:
        half = 1 << self.bits - 1
        return survey(self, self._scales(), self._groups, integers(-half, half - 1))

    def _scales(self) -> F32Array:
        scales: F32Array = self.files.floats(self._scale).reshape(self.shape[0], -1)
        return scales
