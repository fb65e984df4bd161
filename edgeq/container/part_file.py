"""Some of an open file's tensors as a file of their own: a model that lies beside another one."""

import numpy as np
import numpy.typing as npt

from edgeq.container.reader import File


class PartFile(File):
    """The tensors of `file` whose names begin with `before`, under the rest of their names. It shares the map of
    `file`, and is closed with it."""

    def __init__(self, file: File, before: str) -> None:
        vars(self).update(vars(file))
        self._whole, self._before = file, before
        named = {name: info for name, info in file.tensors.items() if name.startswith(before)}
        self.tensors = {name.removeprefix(before): info for name, info in named.items()}

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """As of a file."""
        return self._whole.data(self._before + name)

    def close(self) -> None:
        """Nothing: the file is whose it was."""
