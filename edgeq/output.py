"""Files that are written whole, or not at all."""

import contextlib
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeq.errors import OutputError

Chunk = Any  # whatever memoryview() takes: bytes, or a C-contiguous NumPy array of any dtype


class OutputFile:
    """A file of `nbytes` bytes that takes the place of `path` when its `with` block ends without an exception.

    Until then the bytes go to a temporary file beside it, which is fsynced and renamed, or removed after any exception:
    then an existing `path` stays as it was. Through a link, what it points to is replaced. What nobody writes is zero.

    Every failure is an OutputError: no folder, no permission, not a regular file, a disk that is full or will be.
    """

    def __init__(self, path: str | os.PathLike[str], nbytes: int) -> None:
        self.path = os.fspath(path)
        self.nbytes = nbytes
        self._target = Path(os.path.realpath(self.path))
        # Not named by the process: processes of several containers may share the folder, and their numbers.
        self._temporary = self._target.with_name(f".{self._target.name}.{os.urandom(4).hex()}.tmp")
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._check_target()
            self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise self._failure(error) from None
        return self

    def put(self, chunk: Chunk, offset: int) -> None:
        """Write `chunk` at a place of the file. Several threads may do so at once."""
        data = memoryview(chunk).cast("B")
        try:
            while data:
                n = os.pwrite(self._fd, data[: 1 << 30], offset)
                data, offset = data[n:], offset + n
        except OSError as error:
            raise self._failure(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._complete()
                os.ftruncate(self._fd, self.nbytes)  # zeros at the end have not been written
                os.fsync(self._fd)
                os.replace(self._temporary, self._target)
                _sync(self._target.parent)
        except OSError as failure:
            raise self._failure(failure) from None
        finally:
            os.close(self._fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def _complete(self) -> None:
        """What a subclass has to write or to check at the end of the block."""

    def _check_target(self) -> None:
        """OutputError if the target cannot be a file or the disk cannot hold it."""
        import shutil  # here: a process that finds its kernels writes nothing

        folder = self._target.parent
        if self._target.exists() and not self._target.is_file():
            raise OutputError(f"{self.path}: is not a regular file: give the name of a file to write")
        if not folder.is_dir():
            raise OutputError(f"{self.path}: the folder {folder} does not exist: create it first")
        if (free := shutil.disk_usage(folder).free) < self.nbytes:
            need = f"needs {self.nbytes / 1e6:.1f} MB, the disk has {free / 1e6:.1f} MB free"
            raise OutputError(f"{self.path}: {need}: make room")

    def _failure(self, error: OSError) -> OutputError:
        size = self.nbytes / 1e6
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{self.path}: the disk is full ({size:.1f} MB needed): make room")
        if error.errno == errno.EFBIG:
            return OutputError(f"{self.path}: {size:.1f} MB is more than a file may have here: choose another disk")
        return OutputError(f"{self.path}: cannot be written: {error.strerror or error}: choose another place")


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all. OutputError if it cannot be."""
    with OutputFile(path, len(content)) as file:
        file.put(content, 0)


def _sync(folder: Path) -> None:
    """Make the renaming itself last."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
