"""The weight files of a checkpoint, open for reading tensors as they are stored."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints.stored import Stored, read_elements, read_rows, to_f32
from edgeq.errors import CheckpointError
from edgeq.system.input import InputFile

HELD = 8  # whole tensors kept by `whole`: those that one quantized matrix is stored in


class Files:
    """Reads tensors, just their bytes of a file.

    tensors: Hugging Face name -> where it lies; a single number without a shape is an array of one here
    """

    def __init__(self, tensors: Mapping[str, Stored]) -> None:
        self.tensors = {
            name: one if one.shape else replace(one, shape=(1,), strides=(1,)) for name, one in tensors.items()
        }
        self._files: dict[str, InputFile] = {}
        self._opening = threading.Lock()
        self._held: OrderedDict[str, npt.NDArray[Any]] = OrderedDict()

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows `start` to `stop` of the first axis, elements as stored. KeyError if there is no such tensor;
        CheckpointError if the file cannot be read or became shorter."""
        return self._read(read_elements, name, start, stop)

    def float_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """The same in f32; CheckpointError if the elements are not floating point."""
        return self._read(read_rows, name, start, stop)

    def _read(self, read: Callable[..., npt.NDArray[Any]], name: str, start: int, stop: int) -> npt.NDArray[Any]:
        tensor = self.tensors[name]
        try:
            with self._opening:
                file = self._files.get(tensor.path) or self._files.setdefault(tensor.path, InputFile(tensor.path))
            return read(tensor, file, start, stop)
        except OSError as e:
            raise CheckpointError(f"{tensor.path}: cannot be read: {e.strerror}") from None

    def whole(self, name: str) -> npt.NDArray[Any]:
        """All of a tensor, elements as stored. The last few are kept: do not change them."""
        if name not in self._held:
            self._held[name] = self.rows(name, 0, self.tensors[name].shape[0])
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name]

    def floats(self, name: str) -> npt.NDArray[Any]:
        """All of a floating-point tensor in f32."""
        return to_f32(self.whole(name), self.tensors[name].dtype)

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._held.clear()
