"""Reads what a model's tensors are made from: rows of a checkpoint's tensors, a chunk at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from edgeq.blocks.table import PANEL_ROWS
from edgeq.checkpoints import Checkpoint
from edgeq.checkpoints.packed import Packed, Rows
from edgeq.models import Architecture
from edgeq.models.tensors import NO_BOUND, Part, Projected, Tensor, also_called
from edgeq.ops import layer_norm

F32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """Rows `start` to `stop` of a part of a tensor."""

    tensor: Tensor
    part: Part
    start: int
    stop: int

    def position(self, place: npt.NDArray[np.intp]) -> list[int]:
        """Where a value at `place` of the chunk's rows is in the checkpoint's tensor."""
        row, *columns = (int(i) for i in place)
        at = [self.part.row(self.start + row), *columns]
        if self.part.flat:
            return [int(i) for i in np.unravel_index(at[0], self.part.shape)]
        if self.part.turned is not None:
            at[1] += self.part.turned
        if self.part.projected:
            return at[1:]
        if self.part.channels > 1:
            channel, pixel = divmod(at[1], self.part.shape[1] // self.part.channels)
            at[1] = pixel * self.part.channels + channel
        at = at[::-1] if self.part.transposed or self.part.turned is not None else at
        return at if self.part.plane is None else [self.part.plane, *at]


def chunks(tensor: Tensor, nbytes: int) -> Iterator[Chunk]:
    """A tensor's rows in chunks of whole panels, about `nbytes` of f32 each."""
    columns = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    step = max(nbytes // (4 * columns) // PANEL_ROWS, 1) * PANEL_ROWS
    for part in tensor.parts:
        for start in range(0, part.rows, step):
            yield Chunk(tensor, part, start, min(start + step, part.rows))


def _spans(chunk: Chunk) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the rows of the checkpoint's tensor, run by run."""
    run, start = chunk.part.run or chunk.part.rows, chunk.start
    while start < chunk.stop:
        stop = min(chunk.stop, (start // run + 1) * run)
        first = chunk.part.row(start)
        yield first, first + stop - start
        start = stop


class Sources:
    """A checkpoint's tensors by the names that a model calls them."""

    def __init__(self, checkpoint: Checkpoint, model: Architecture) -> None:
        self._checkpoint = checkpoint
        self._prefixes = model.prefixes
        self._scales: dict[str, np.float32] = {}  # of ternary tensors
        self._whole: tuple[str, int, F32Array] | None = None  # the tensor, or a matrix of one, that was read last

    def name(self, source: str) -> str | None:
        """What the checkpoint calls the tensor `source`: its prefix may be another one. None if it has none."""
        names = [source, *also_called(source, self._prefixes)]
        return next((name for name in names if name in self._checkpoint.tensors), None)

    def read(self, chunk: Chunk) -> F32Array:
        """The rows of a chunk, f32 [rows] or [rows, columns], as they belong in the file."""
        rows = self._stored(chunk)
        if chunk.tensor.ternary:
            scale = self._scale(chunk)
            rows = np.clip(np.rint(rows / scale), -1.0, 1.0) * scale
        if chunk.tensor.log:
            rows = -np.exp(rows)
        if chunk.tensor.bound:
            rows = np.clip(rows, -NO_BOUND, NO_BOUND)
        return rows + np.float32(chunk.tensor.add) if chunk.tensor.add else rows

    def packed(self, tensor: Tensor) -> list[Packed]:
        """The quantized matrices that all of a tensor's parts are rows of; none if a part is not of such a matrix."""
        names = [self.name(part.source) or "" for part in tensor.parts]
        found = [self._checkpoint.packed[name] for name in names if name in self._checkpoint.packed]
        turned = any(part.turned is not None or part.channels > 1 for part in tensor.parts)
        return found if len(found) == len(names) and not (tensor.add or tensor.ternary or turned) else []

    def read_packed(self, chunk: Chunk) -> Rows:
        """The rows of a chunk of a quantized matrix, its codes as they are stored."""
        matrix = self._checkpoint.packed[self.name(chunk.part.source) or ""]
        places = [chunk.part.row(i) for i in range(chunk.start, chunk.stop)]
        rows = matrix.rows(places[0], places[-1] + 1)
        if len(rows.codes) == len(places):
            return rows
        picked = np.array(places) - places[0]  # runs may be of single rows
        return replace(rows, codes=rows.codes[picked], scales=rows.scales[picked])

    def _scale(self, chunk: Chunk) -> np.float32:
        """The mean of |weight| over the chunk's part, which is read a second time for it."""
        part = chunk.part
        if part.source not in self._scales:
            whole = chunks(chunk.tensor, max(4 * (chunk.stop - chunk.start) * part.shape[-1], 1 << 20))
            total = sum(float(np.abs(self._stored(one), dtype=np.float64).sum()) for one in whole)
            self._scales[part.source] = np.float32(max(total / (part.rows * part.shape[-1]), 1e-5))
        return self._scales[part.source]

    def _stored(self, chunk: Chunk) -> F32Array:
        """The rows of a chunk as they are in the checkpoint."""
        part, name = chunk.part, self.name(chunk.part.source)
        assert name is not None, "checked before anything is read"
        if part.turned is not None:
            block = self._block(name, part.turned, chunk.tensor.shape[-1])
            if part.projected:
                return self._projected(part.projected, chunk, block)
            return block[chunk.start : chunk.stop]
        if part.plane is not None or part.flat:
            whole = self._flat(name) if part.plane is None else self._plane(name, part.plane)
            picked = [part.row(i) for i in range(chunk.start, chunk.stop)]
            return np.ascontiguousarray((whole.T if part.transposed else whole)[picked])
        if part.transposed and len(part.shape) > 1 and name not in self._checkpoint.packed:
            rows = np.ascontiguousarray(self._transposed(name)[part.row(chunk.start) : part.row(chunk.stop - 1) + 1])
        else:
            rows = self._runs(name, chunk)
        if rows.ndim > 1:
            rows = rows.reshape(len(rows), prod(rows.shape[1:]))
        if part.channels > 1:
            rows = rows.reshape(len(rows), -1, part.channels).swapaxes(1, 2).reshape(len(rows), -1)
        return rows

    def _runs(self, name: str, chunk: Chunk) -> F32Array:
        """Read run by run."""
        if name in self._checkpoint.packed:
            return self.read_packed(chunk).weights()
        pieces = [self._checkpoint.read_rows(name, first, last) for first, last in _spans(chunk)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _transposed(self, name: str) -> F32Array:
        """All of a tensor with its axes exchanged: its columns lie too far apart to be read by themselves."""
        if self._whole is None or self._whole[:2] != (name, 0):
            self._whole = None
            self._whole = name, 0, self._checkpoint.read(name).T
        return self._whole[2]

    def _block(self, name: str, first: int, count: int) -> F32Array:
        """Some rows of a matrix as columns."""
        if name in self._checkpoint.packed:
            rows = self._checkpoint.packed[name].rows(first, first + count).weights()
        else:
            rows = self._checkpoint.read_rows(name, first, first + count)
        return np.ascontiguousarray(rows.T)

    def _projected(self, given: Projected, chunk: Chunk, block: F32Array) -> F32Array:
        """What the matrix `block`, turned, makes of the chunk's rows of what is given."""

        def read(name: str, *rows: int) -> F32Array:
            return self._checkpoint.read_rows(self.name(name) or "", *rows)

        rows, first = read(given.rows, chunk.start, chunk.stop), chunk.part.turned or 0
        if given.norm:
            weight, bias = (read(f"{given.norm}.{part}", 0, len(block)) for part in ("weight", "bias"))
            rows = layer_norm.reference(rows, weight, bias, given.eps)
        wide = rows.astype(np.float64) @ block + read(given.bias, first, first + block.shape[1])
        return wide.astype(np.float32)

    def _flat(self, name: str) -> F32Array:
        """All values of a tensor."""
        return self._checkpoint.read(name).reshape(-1)

    def _plane(self, name: str, index: int) -> F32Array:
        """A matrix of a tensor of three dimensions."""
        if self._whole is None or self._whole[:2] != (name, index):
            self._whole = None
            self._whole = name, index, self._checkpoint.read_rows(name, index, index + 1)[0]
        return self._whole[2]
