"""The scales of GGUF's NVFP4 tensors, and what a tensor is multiplied by beside: `NAME.scale` has one number for
`NAME.weight`, or one for each of its experts' matrices."""

from math import prod

import numpy as np

from edgeq.blocks import nvfp4
from edgeq.blocks.fields import F32, Fields
from edgeq.blocks.gguf_decode import nvfp4_scales
from edgeq.container.gguf_reader import GgufFile, GgufTensor
from edgeq.errors import FormatError, UnsupportedError

NAME = "NVFP4"
EXACT, ROUNDED = "exact in a wider type", "scales rounded"
CHUNK_ROWS = 1024


def factors(file: GgufFile) -> dict[str, F32]:
    """Name of a tensor's scale -> f32 [its matrices]. FormatError for a damaged one."""
    found: dict[str, F32] = {}
    for tensor in file.tensors.values():
        name = f"{tensor.name.removesuffix('.weight')}.scale"
        scale = file.tensors.get(name)
        if tensor.type.name != NAME or scale is None:
            continue
        count = prod(tensor.shape[:-2])
        if scale.type.name != "F32" or scale.shape not in ((1,), (count,)):
            what = f"tensor {name} is {scale.type.name} {list(scale.shape)}, not F32 {[count]}"
            raise FormatError(f"{file.path}: {what}: convert it again")
        values = np.ascontiguousarray(file.data(name)).reshape(-1).view("<f4")
        if not np.isfinite(values).all():
            raise FormatError(f"{file.path}: tensor {name} has a value that is not finite: download or copy it again")
        found[name] = np.broadcast_to(values, (count,))
    return found


def factor_of(tensor: GgufTensor, known: dict[str, F32]) -> F32:
    """f32 [matrices]: what a tensor's are multiplied by."""
    return known.get(f"{tensor.name.removesuffix('.weight')}.scale", np.ones(prod(tensor.shape[:-2]), np.float32))


def error_of(file: GgufFile, tensor: GgufTensor, factor: F32) -> float:
    """The relative error (RMS) of the scales of an NVFP4 tensor in NVFP4_W, 0 if that holds every weight.
    UnsupportedError for a scale past its range."""
    matrices = file.data(tensor.name).reshape(len(factor), tensor.shape[-2], -1)
    wrong, whole = 0.0, 0.0
    for matrix, times in zip(matrices, factor, strict=True):
        for start in range(0, len(matrix), CHUNK_ROWS):
            blocks = matrix[start : start + CHUNK_ROWS].reshape(-1, tensor.type.block_bytes)
            scales = nvfp4_scales(blocks).reshape(-1, tensor.shape[-1] // nvfp4.SHARING)
            squares = nvfp4.squares(scales, np.full(1, times, np.float32))
            if not np.isfinite(squares).all():
                raise UnsupportedError(
                    f"{file.path}: tensor {tensor.name} has a scale that is too large: take an F16 file"
                )
            wrong, whole = wrong + squares[0], whole + squares[1]
    return float(np.sqrt(wrong / whole)) if wrong else 0.0


def times(fields: Fields, factor: np.float32) -> Fields:
    """Fields of NVFP4_W, whose weights are those of `fields` times a factor."""
    return Fields(fields.codes, (fields.d * factor).astype(np.float16), None, fields.scales)
