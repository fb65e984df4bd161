"""Writes GGUF files, version 3: whole, or not at all."""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from edgeq.blocks.gguf_types import BY_NAME
from edgeq.container.gguf_values import ALIGNMENT, MAGIC, VERSION, render_string
from edgeq.container.placement import align
from edgeq.system.output import Chunk, OutputFile


@dataclass(frozen=True)
class GgufSpec:
    """A tensor to be written: shape outermost first, type by GGUF's name."""

    name: str
    shape: tuple[int, ...]
    type: str

    @property
    def nbytes(self) -> int:
        """Bytes of its data. UnsupportedError if blocks do not divide its rows."""
        return prod(self.shape[:-1]) * BY_NAME[self.type].row_bytes(self.shape[-1])


class GgufWriter(OutputFile):
    """Writes the tensors' bytes in the order of `tensors`, in chunks of any size.

    The file is there when the `with` block ends without an exception and every tensor is complete; after any exception
    an existing `path` is as it was. OutputError if the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: bytes,
        keys: int,
        tensors: Sequence[GgufSpec],
        alignment: int = ALIGNMENT,
    ) -> None:
        self._alignment = alignment
        self._left = [tensor.nbytes for tensor in tensors][::-1]  # bytes of the tensors still to come, the next last
        infos, offset = [], 0
        for tensor in tensors:
            dims = tensor.shape[::-1]
            place = struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, BY_NAME[tensor.type].id, offset)
            infos.append(render_string(tensor.name) + place)
            offset = align(offset + tensor.nbytes, alignment)
        head = struct.pack("<4sIQQ", MAGIC, VERSION, len(tensors), keys) + metadata + b"".join(infos)
        self._head = head + bytes(-len(head) % alignment)
        super().__init__(path, len(self._head) + offset)
        self._end = len(self._head)  # where the next chunk goes

    def write(self, chunk: Chunk) -> None:
        """Append `chunk` to the tensor at hand; ValueError if it is too long."""
        data = memoryview(chunk).cast("B")
        if not self._left or len(data) > self._left[-1]:
            raise ValueError("more bytes than the tensor has")
        self.put(data, self._end)
        self._end += len(data)
        self._left[-1] -= len(data)
        if not self._left[-1]:
            self._left.pop()
            self._end = align(self._end, self._alignment)

    def _complete(self) -> None:
        if self._left:
            raise ValueError(f"{len(self._left)} tensors are not complete")
        self.put(self._head, 0)
