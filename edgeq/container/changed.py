"""An open file some of whose tensors are others, in memory: what a model would be with them, before it is written."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgeq.container.placement import TensorInfo
from edgeq.container.reader import File

Own = Mapping[str, tuple[str, npt.NDArray[np.uint8]]]  # name -> (block type, its bytes, 64-byte aligned)


class ChangedFile(File):
    """`file` with the tensors `own` in place of its own of the same names and shapes. It shares the map of `file`, and
    is closed with it."""

    def __init__(self, file: File, own: Own) -> None:
        vars(self).update(vars(file))
        self._before, self._own = file, {name: data for name, (_, data) in own.items()}
        self.tensors = dict(file.tensors)
        for name, (kind, data) in own.items():
            self.tensors[name] = TensorInfo(name, file.tensors[name].shape, kind, 0, data.nbytes, 0)

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """As of a file."""
        return self._own[name] if name in self._own else self._before.data(name)

    def close(self) -> None:
        """Nothing: the file is whose it was."""
