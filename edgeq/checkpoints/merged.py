"""A checkpoint to some of whose matrices others of low rank are added: what adapters make of it, read as any other."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints.checkpoint import Checkpoint, TensorRef
from edgeq.checkpoints.stored import Stored

F32Array = npt.NDArray[np.float32]


class Change(NamedTuple):
    """b @ a is added to a tensor [rows, columns]: b is f32 [rows, rank], a is f32 [rank, columns]."""

    b: F32Array
    a: F32Array


class Merged(Checkpoint):
    """`base` with `changes`, by the names of its tensors; it is closed with it.

    copies: names that `base` does not have -> the tensor that they stand for, before it is changed
    merged: what is told of the changes, one by one
    files:  what they were read from, beside the files of `base`

    What is changed is F32, and no longer quantized if it was. Sums are made in f32, row by row.
    """

    def __init__(
        self,
        base: Checkpoint,
        changes: Mapping[str, Sequence[Change]],
        copies: Mapping[str, str],
        merged: Sequence[str],
        files: Sequence[str],
    ) -> None:
        vars(self).update(vars(base))
        self._base, self._changes, self._copies = base, changes, copies
        self.merged, self.files = tuple(merged), [*base.files, *files]
        self.packed = {name: matrix for name, matrix in base.packed.items() if name not in changes}
        self.tensors = dict(base.tensors)
        for name in (*changes, *copies):
            self.tensors[name] = TensorRef(name, base.tensors[copies.get(name, name)].shape, "F32")
        if base.packed and not self.packed:
            self.config = {key: value for key, value in base.config.items() if key != "quantization_config"}

    def read_rows(self, name: str, start: int, stop: int) -> F32Array:
        """As of any checkpoint."""
        rows = self._base.read_rows(self._copies.get(name, name), start, stop)
        for change in self._changes.get(name, ()):
            rows += change.b[start:stop] @ change.a
        return rows

    def nbytes(self, name: str) -> int:
        """As of any checkpoint; of what is changed, that of what it was."""
        return self._base.nbytes(self._copies.get(name, name))

    def _place(self, name: str) -> Stored | None:
        return None if name in self._changes or name in self._copies else self._base._place(name)
