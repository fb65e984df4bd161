"""An open file some of whose tensors are others, in memory: what a model would be with them, before it is written."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgeq.container.placement import TensorInfo
from edgeq.container.reader import File

Own = Mapping[str, tuple[str, npt.NDArray[np.uint8]]]  # name -> (block type, its bytes, 64-byte aligned)
NONE: Mapping[str, tuple[int, ...]] = {}


class ChangedFile(File):
    """`file` with the tensors `own` in place of its own of the same names and shapes, and beside them with those whose
    `shapes` are given. It shares the map of `file`, and is closed with it."""

    def __init__(self, file: File, own: Own, shapes: Mapping[str, tuple[int, ...]] = NONE) -> None:
        vars(self).update(vars(file))
        self._before, self._own = file, {name: data for name, (_, data) in own.items()}
        self.tensors = dict(file.tensors)
        for name, (kind, data) in own.items():
            shape = shapes[name] if name in shapes else file.tensors[name].shape
            self.tensors[name] = TensorInfo(name, shape, kind, 0, data.nbytes, 0)

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """As of a file."""
        return self._own[name] if name in self._own else self._before.data(name)

    def close(self) -> None:
        """Nothing: the file is whose it was."""
