"""An equal model that loses less when it is quantized: columns that matter more are larger, what they read smaller.
Or, for activations in 8 bits, one that reads fewer outliers.

A scale serves a group of columns, so in rounding all of them err alike, whether their inputs are large or small. Column
j of all matrices that read a row x is multiplied with s_j = E[x_j^2]^(ALPHA / 2), and what makes x_j divided by it: the
weights of the norm before, or the rows of the up projection of a gated MLP (AWQ, arXiv:2306.00978, whose search of
ALPHA gains nothing here: from 0.1 to 0.3 the loss is nearly flat). Nothing has to be computed when the model runs.

`smoothed` folds other scales into the same places, SmoothQuant's (arXiv:2211.10438): max |x_j|^a / max |w_j|^(1 - a).
"""

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import tensor_bytes
from edgeq.container.reader import File
from edgeq.errors import UsageError
from edgeq.graph.aligned import aligned_copy
from edgeq.graph.op import Op
from edgeq.models import Architecture
from edgeq.ops import Graph
from edgeq.ops.activation import Activation
from edgeq.ops.layer_norm import LayerNorm
from edgeq.ops.matmul import Linear
from edgeq.ops.norm import RMSNorm
from edgeq.ops.silu_mul import SiluMul

ALPHA = 0.2
SMOOTHING = 0.5  # SmoothQuant's alpha: how much of the outliers goes into the weights
LEAST = 1e-6  # of the mean of E[x^2]: a column that has less is taken to have so much
LEAST_MAXIMUM = 1e-5  # of the largest one of all columns, in their place
AT_HAND = 8  # tensors that are kept when they were made, about those of a layer

MeanSquare = Callable[[str], F32 | None]  # of what a matrix reads, by column
Maxima = Callable[[str], F32 | None]  # the largest magnitudes there


@dataclass(frozen=True)
class Fold:
    """Matrices that read the same row, and the tensors, vectors or matrices by row, whose scale is that row's."""

    readers: tuple[str, ...]
    makers: tuple[str, ...]


def folds(model: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> list[Fold]:
    """Where a layer's columns can be scaled: of rows that linear layers alone read."""
    graph = Graph(shapes)
    model.graph(graph, range(1, model.num_hidden_layers + 1))
    latest: dict[int, int] = {}  # the node that gave a value, or changed it last, by the value's index
    read_by: dict[int, list[Op]] = {}  # what reads or changes that, by node
    ups: dict[int, int] = {}  # the node that gave what is gated, by node of the gate
    for at, node in enumerate(graph.nodes):
        for value in (*node.op.reads, *([node.op.changes] if node.op.changes else [])):
            read_by.setdefault(latest.get(value.index, -1), []).append(node.op)
        if isinstance(node.op, SiluMul | Activation) and node.op.up is not None:
            ups[at] = latest.get(node.op.up.index, -1)
        latest[node.output.index] = at
    found = []
    for at, node in enumerate(graph.nodes):
        readers = [op.weight for op in read_by.get(at, []) if isinstance(op, Linear) and op.x == node.output]
        maker = node.op
        if at in ups:  # the rows of its matrix, unless something else reads these, too
            maker = graph.nodes[ups[at]].op if len(read_by.get(ups[at], [])) == 1 else node.op
        if readers and len(readers) == len(read_by[at]) and (makers := _makers(maker)):
            found.append(Fold(tuple(readers), makers))
    return found


def _makers(op: Op) -> tuple[str, ...]:
    """The tensors whose scale is that of what an operation gives."""
    if isinstance(op, RMSNorm) and op.add_to is None:
        return (op.weight,) if op.weight else ()
    if isinstance(op, LayerNorm) or (isinstance(op, Linear) and op.add_to is None):
        return tuple(name for name in (op.weight, op.bias) if name) if op.weight else ()
    return ()


def equalized(file: File, model: Architecture, mean_square: MeanSquare, names: Collection[str]) -> File:
    """`file`, of plain types, with the columns of the matrices `names` scaled where these alone are concerned."""
    return _scaled(file, model, names, lambda fold: equalizing(mean_square(fold.readers[0])))


def equalizing(power: F32 | None) -> F32 | None:
    """The scale of columns with such mean squares; None where nothing is known, or all is zero."""
    if power is None or not power.any():
        return None
    scale = np.maximum(power, LEAST * power.mean(dtype=np.float64)).astype(np.float64) ** (ALPHA / 2)
    return _centered(scale)


def smoothed(file: File, model: Architecture, maxima: Maxima, names: Collection[str], alpha: float = SMOOTHING) -> File:
    """`file`, of plain types, with SmoothQuant's scales folded in where matrices `names` alone are concerned: what
    cannot be scaled, as the input of an output projection, stays as it is.

    Raises UsageError where the model has no place to fold a scale into, and for an `alpha` that is not from 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"a smoothing of {alpha} cannot work: give one from 0 to 1")
    if not folds(model, {name: info.shape for name, info in file.tensors.items()}):
        what = f"{model.name} has no norm or projection before its matrices that a scale can be folded into"
        raise UsageError(f"{file.path}: {what}: take scales per token")
    return _scaled(file, model, names, lambda fold: smoothing(file, fold, maxima(fold.readers[0]), alpha))


def smoothing(file: File, fold: Fold, maxima: F32 | None, alpha: float = SMOOTHING) -> F32 | None:
    """The scale of columns that read such largest magnitudes; None where nothing is known, or all is zero."""
    if maxima is None or not maxima.any():
        return None
    weights = np.max([_column_maxima(file, name) for name in fold.readers], axis=0)
    if not weights.any():
        return None
    seen, own = (np.maximum(one, LEAST_MAXIMUM * one.max()).astype(np.float64) for one in (maxima, weights))
    return _centered(seen**alpha / own ** (1 - alpha))


def _column_maxima(file: File, name: str) -> F32:
    info = file.tensors[name]
    rows, columns = info.shape
    found: F32 = np.abs(decode(file.data(name), rows, columns, info.type)).max(0).astype(np.float32)
    return found


def _centered(scale: npt.NDArray[np.float64]) -> F32:
    """With a geometric mean of 1."""
    found: F32 = (scale / np.exp(np.log(scale).mean())).astype(np.float32)
    return found


def _scaled(file: File, model: Architecture, names: Collection[str], scale_of: Callable[[Fold], F32 | None]) -> File:
    shapes = {name: info.shape for name, info in file.tensors.items()}
    columns: dict[str, F32] = {}
    rows: dict[str, F32] = {}
    for fold in folds(model, shapes):
        matrices = [name for name in (*fold.readers, *fold.makers) if len(shapes[name]) > 1]
        if not all(map(names.__contains__, matrices)) or (scale := scale_of(fold)) is None:
            continue
        columns |= dict.fromkeys(fold.readers, scale)
        rows |= dict.fromkeys(fold.makers, scale)
    return _Scaled(file, columns, rows) if columns else file


class _Scaled(File):
    """`file` with columns multiplied and rows divided, f32 by name; it shares the map of `file`, and is closed with
    it."""

    def __init__(self, file: File, columns: Mapping[str, F32], rows: Mapping[str, F32]) -> None:
        vars(self).update(vars(file))
        self._before, self._columns, self._rows = file, columns, rows
        self.tensors = dict(file.tensors)
        for name in columns.keys() | rows.keys():
            info = file.tensors[name]
            crc = zlib.crc32(b"".join(one[name].tobytes() for one in (columns, rows) if name in one), info.crc32)
            nbytes = tensor_bytes("F32", info.shape) if len(info.shape) > 1 else info.nbytes
            self.tensors[name] = replace(info, type="F32", nbytes=nbytes, crc32=crc)
        self._made = lru_cache(AT_HAND)(self._make)

    def data(self, name: str) -> U8:
        """As of a file."""
        scaled = name in self._columns or name in self._rows
        return self._made(name) if scaled else self._before.data(name)

    def _make(self, name: str) -> U8:
        info, data = self._before.tensors[name], self._before.data(name)
        if len(info.shape) == 1:
            values = (data.view(np.float32) / self._rows[name]).view(np.uint8)
        else:
            rows, columns = info.shape
            weights = decode(data, rows, columns, info.type).astype(np.float32)
            if name in self._columns:
                weights *= self._columns[name]
            if name in self._rows:
                weights /= self._rows[name][:, None]
            values = encode(weights, "F32")
        return aligned_copy(values)

    def close(self) -> None:
        """Nothing: the file is whose it was."""
