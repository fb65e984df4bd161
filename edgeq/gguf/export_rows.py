"""The rows of our tensors as GGUF has them, some at a time."""

from collections.abc import Iterator
from math import lcm, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.gguf_decode import can_narrow, narrow
from edgeq.blocks.panels import unpack_panels
from edgeq.blocks.reference import decode, to_gguf, to_plain
from edgeq.blocks.table import PANEL_ROWS, BlockType, block_type
from edgeq.container.reader import File, TensorInfo
from edgeq.gguf.export_plan import Bytes, Exported, Fallback
from edgeq.gguf.rearranger import Rearranger
from edgeq.gguf.row_order import neighbours, rotated_heads
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_places import split, turns

CHUNK_ROWS = 512  # a multiple of a panel's


def rows_of(
    file: File,
    tensor: Exported,
    entry: GgufArchitecture,
    heads: tuple[int, int],
    fallback: Fallback | None,
    rearranger: Rearranger,
    factor: float,
) -> Iterator[npt.NDArray[Any]]:
    """The bytes of a tensor of GGUF, some rows at a time. `heads`: query and key/value heads; `factor`: what the
    architecture's scaled norm is multiplied by."""
    woven: list[npt.NDArray[Any]] = []
    for part, nth in _in_order(file, tensor):
        if turns(tensor.name, part.name):
            woven.append(_turned(file, part, heads[0], tensor.type))
            continue
        reordered = rotated_heads(part.name, entry, *heads)
        scale = factor if entry.scaled and split(part.name)[1] == entry.scaled else 1.0
        chunks = _chunks(file, part, nth, tensor.type, reordered, fallback, rearranger, scale)
        if tensor.pieces > 1 or woven:
            woven.append(np.concatenate(list(chunks)))
            continue
        first: npt.NDArray[Any] | None = None
        for chunk in chunks:
            yield chunk
            first = chunk[:1] if first is None else first
        if tensor.repeated and first is not None:
            yield np.repeat(first, tensor.repeated, axis=0)
    if woven:
        rows = [part.reshape(tensor.pieces, -1, part.shape[-1]) for part in woven]
        yield np.ascontiguousarray(np.concatenate(rows, axis=1))


def _turned(file: File, info: TensorInfo, heads: int, kind: str) -> Bytes:
    """u8 [heads * columns, row_bytes] of the type `kind`: a matrix whose rows become columns, head by head."""
    rows, cols = info.shape
    weights = decode(file.data(info.name), rows, cols, info.type).reshape(heads, rows // heads, cols)
    turned = np.ascontiguousarray(weights.transpose(0, 2, 1)).reshape(heads * cols, -1)
    return np.ascontiguousarray(to_plain(turned, kind)).view(np.uint8)


def _in_order(file: File, tensor: Exported) -> Iterator[tuple[TensorInfo, int]]:
    """The tensors whose rows follow one another, and which of their matrices (those of experts) it is."""
    infos = [file.tensors[part] for part in tensor.parts]
    for nth in range(prod(infos[0].shape[:-2])):
        for info in infos:
            yield info, nth


def _chunks(
    file: File,
    info: TensorInfo,
    nth: int,
    kind: str,
    heads: int,
    fallback: Fallback | None,
    rearranger: Rearranger,
    scale: float = 1.0,
) -> Iterator[npt.NDArray[Any]]:
    """The bytes of a vector, times `scale`, or of the matrix `nth` as GGUF has them in the type `kind`, some rows at a
    time."""
    data = file.data(info.name)
    if len(info.shape) == 1:
        vector = data.view("<f4") if scale == 1.0 else data.view("<f4") * np.float32(scale)
        values = neighbours(vector[:, None], heads).reshape(-1) if heads else vector
        yield np.ascontiguousarray(to_plain(values, kind))
        return
    rows, cols = info.shape[-2:]
    bt = block_type(info.type)
    panel = bt.panel_bytes(cols)
    step = lcm(CHUNK_ROWS, rows // heads) if heads else CHUNK_ROWS
    matrix = data.reshape(-1, bt.tensor_bytes(rows, cols))[nth]
    for first in range(0, rows, step):
        count = min(step, rows - first)
        part = matrix[first // PANEL_ROWS * panel : -(-(first + count) // PANEL_ROWS) * panel]
        if can_narrow(info.type, kind):
            lines = narrow(unpack_panels(part, count, cols, bt), kind).reshape(count, -1)
        elif kind != info.type and fallback:
            lines = fallback.encode(decode(part, count, cols, info.type), kind)
        else:
            lines = (rearranger.to_blocks if bt.quantized else _plain)(part, count, cols, bt).reshape(count, -1)
        yield neighbours(lines, heads * count // rows) if heads else lines


def _plain(part: Bytes, rows: int, cols: int, bt: BlockType) -> Bytes:
    return to_gguf(part, rows, cols, bt.name)
