"""A tensor of a GGUF file, some rows at a time, turned into what an .eqf file holds."""

from collections.abc import Iterator
from math import lcm, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import Fields, decode_fields
from edgeq.blocks.gguf_decode import widen
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.reference import decode, encode, from_gguf
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.gguf_reader import GgufFile, GgufTensor
from edgeq.errors import UnsupportedError
from edgeq.gguf import nvfp4_scales
from edgeq.gguf.import_plan import EXACT, Job
from edgeq.gguf.rearranger import Rearranger
from edgeq.gguf.row_order import halves
from edgeq.models.tensors import NO_BOUND

U8 = npt.NDArray[np.uint8]
CHUNK_BYTES = 1 << 20  # of blocks turned at a time: what a core keeps in its cache


def vector_of(file: GgufFile, name: str) -> npt.NDArray[np.float32]:
    """f32 [n] of all values of a tensor that is not quantized."""
    tensor = file.tensors[name]
    data = np.ascontiguousarray(file.data(name)).reshape(-1)
    if tensor.type.name == "F32":
        return data.view("<f4")
    if tensor.type.name == "F16":
        return data.view("<f2").astype(np.float32)
    if tensor.type.name == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    raise UnsupportedError(f"{file.path}: the vector {name!r} has type {tensor.type.name}: F32, F16, BF16 are possible")


def runs(file: GgufFile, job: Job) -> Iterator[tuple[int, U8]]:
    """(which matrix, u8 [rows, row_bytes]) of the rows there that a tensor is made of, some at a time."""
    if len(job.spec.shape) == 1:
        yield 0, file.data(job.tensor.name)
        return
    if job.pieces > 1 or job.turned:
        rows = file.data(job.tensor.name).reshape(job.pieces, job.tensor.shape[0] // job.pieces, -1)
        picked = rows[:, job.first : job.first + job.of_piece].reshape(job.pieces * job.of_piece, -1)
        yield 0, np.ascontiguousarray(picked)
        return
    head_dim = job.rows // job.heads if job.heads else 1
    yield from _chunks(file, job.tensor, head_dim, job.first, job.rows)


def _chunks(file: GgufFile, tensor: GgufTensor, unit: int, first: int = 0, rows: int = 0) -> Iterator[tuple[int, U8]]:
    """(which matrix, u8 [rows, row_bytes]) of runs of rows, each a multiple of `unit` and of a panel's rows: of all
    rows of the tensor, or of `rows` ones from `first` on in each of its matrices (those of experts follow one another).
    """
    every = tensor.shape[-2]
    data, rows = file.data(tensor.name).reshape(prod(tensor.shape[:-2]), every, -1), rows or every
    unit = lcm(unit, PANEL_ROWS)
    step = max(CHUNK_BYTES // data.shape[2] // unit, 1) * unit
    for nth, matrix in enumerate(data):
        for start in range(first, first + rows, step):
            yield nth, matrix[start : min(start + step, first + rows)]


def as_held(file: GgufFile, job: Job, nth: int, rows: U8, rearranger: Rearranger) -> npt.NDArray[Any]:
    """What is written for a run of rows of the matrix `nth`: panels, or the values of a vector."""
    if len(job.spec.shape) == 1:
        vector = vector_of(file, job.tensor.name)[job.first : job.first + job.rows]
        vector = np.clip(vector, -NO_BOUND, NO_BOUND) if job.bound else vector
        return halves(vector[:, None], job.heads).reshape(-1) if job.heads else vector
    count, cols, name = len(rows), job.tensor.shape[-1], job.tensor.type.name
    if job.heads:
        rows = halves(rows, job.heads * count // job.rows)
    if job.turned:
        pieces = _weights(job, nth, rows).reshape(job.pieces, job.of_piece, cols)
        return encode(np.ascontiguousarray(pieces.transpose(0, 2, 1)).reshape(job.spec.shape), job.spec.type)
    if job.how == EXACT:
        bt = block_type(name)
        return rearranger.to_panels(rows, count, cols, bt) if bt.quantized else from_gguf(rows, count, cols, name)
    return pack_panels(_widened(job, nth, rows), block_type(job.spec.type))


def _widened(job: Job, nth: int, rows: U8) -> Fields:
    fields = widen(rows, len(rows), job.tensor.shape[-1], job.tensor.type.name)
    return fields if job.factors is None else nvfp4_scales.times(fields, job.factors[nth])


def _weights(job: Job, nth: int, rows: U8) -> npt.NDArray[np.float32]:
    """f32 [rows, columns] of blocks of any type."""
    count, cols, kind = len(rows), job.tensor.shape[-1], job.tensor.type
    if kind.native:
        return decode(from_gguf(rows, count, cols, kind.name), count, cols, kind.name)
    return decode_fields(_widened(job, nth, rows), block_type(kind.held))
