"""Writes GGUF files, version 3: whole, or not at all."""

import contextlib
import errno
import os
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeq.blocks.gguf_types import BY_NAME
from edgeq.container.gguf_values import ALIGNMENT, MAGIC, VERSION, render_string
from edgeq.container.layout import align
from edgeq.errors import OutputError


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


class GgufWriter:
    """Writes the tensors' bytes in the order of `tensors`, in chunks of any size, to a temporary file beside `path`.

    It takes the place of `path` (fsynced, renamed) when the `with` block ends without an exception; otherwise it is
    removed and an existing `path` stays as it was. OutputError if the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: bytes,
        keys: int,
        tensors: Sequence[GgufSpec],
        alignment: int = ALIGNMENT,
    ) -> None:
        self.path = os.fspath(path)
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
        self.nbytes = len(self._head) + offset
        self._target = Path(os.path.realpath(self.path))  # through a link, what it points to is replaced
        self._temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Self:
        try:
            if not self._target.parent.is_dir():
                raise OutputError(f"{self.path}: the folder {self._target.parent} does not exist: create it first")
            if self._target.exists() and not self._target.is_file():
                raise OutputError(f"{self.path}: is not a regular file: give the name of a file to write")
            if (free := shutil.disk_usage(self._target.parent).free) < self.nbytes:
                need = f"needs {self.nbytes / 1e6:.1f} MB, the disk has {free / 1e6:.1f} MB free"
                raise OutputError(f"{self.path}: {need}: make room")
            self._file = open(self._temporary, "wb")
        except OSError as error:
            raise self._failure(error) from None
        self._put(self._head)
        return self

    def write(self, chunk: Any) -> None:
        """Append `chunk`, whatever memoryview() takes, to the tensor at hand; ValueError if it is too long."""
        data = memoryview(chunk).cast("B")
        if not self._left or len(data) > self._left[-1]:
            raise ValueError("more bytes than the tensor has")
        self._put(data)
        self._left[-1] -= len(data)
        if not self._left[-1]:
            self._left.pop()
            self._put(bytes(-self._file.tell() % self._alignment))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._left:
                    raise ValueError(f"{len(self._left)} tensors are not complete")
                self._file.flush()
                os.fsync(self._file.fileno())
                os.replace(self._temporary, self._target)
        except OSError as failure:
            raise self._failure(failure) from None
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def _put(self, data: Any) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> OutputError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{self.path}: the disk is full ({self.nbytes / 1e6:.1f} MB needed): make room")
        return OutputError(f"{self.path}: cannot be written: {error.strerror or error}")
