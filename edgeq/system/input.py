"""Files that several threads read at once, each at a place of its own."""

import errno
import os
import stat
import threading
import weakref

from edgeq.errors import UsageError

_MOST = 1 << 30  # bytes of one request; systems refuse or cut longer ones


class IrregularError(OSError):
    """What has that name is neither a file nor a folder: a pipe, say, for which one could wait for ever."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(errno.EINVAL, "is not a regular file", os.fspath(path))


def open_regular(path: str | os.PathLike[str], flags: int = 0) -> int:
    """A descriptor to read a regular file by; `flags` are further ones of os.open.

    Raises OSError where there is none: IsADirectoryError for a folder, IrregularError for a pipe or a device.
    """
    flags |= os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags)
    except ValueError:  # a name with a zero byte, or half a surrogate pair
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path)) from None
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise IrregularError(path)


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """All of a regular file, or its first bytes. Raises OSError where there is none."""
    with open(open_regular(path), "rb") as file:
        return file.read(-1 if most is None else most)


class InputFile:
    """A regular file, open for reading. `close` may be called twice; a file that is dropped is closed with the object.

    Raises OSError where it cannot be opened (as `open_regular`) or read, ValueError for a closed one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = open_regular(path)
        self.close = weakref.finalize(self, os.close, self._fd)
        self.close.atexit = False  # a thread may still be reading, and the system closes it anyway
        self._seeking = threading.Lock()

    @property
    def fd(self) -> int:
        """The file's descriptor."""
        if not self.close.alive:
            raise ValueError("the file is closed")
        return self._fd

    @property
    def nbytes(self) -> int:
        """Bytes of the file, as it is now."""
        return os.fstat(self.fd).st_size

    def read_into(self, target: memoryview, offset: int) -> int:
        """Fill `target`, bytes, from `offset` on; how many were read: fewer only at the file's end."""
        done = 0
        while done < len(target) and (count := self._some(target[done : done + _MOST], offset + done)):
            done += count
        return done

    def read(self, nbytes: int, offset: int) -> bytes:
        """Up to `nbytes` from `offset`; fewer only at the file's end."""
        target = bytearray(nbytes)
        return bytes(memoryview(target)[: self.read_into(memoryview(target), offset)])

    def _some(self, target: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.fd, [target], offset)
        with self._seeking, open(self.fd, "rb", buffering=0, closefd=False) as file:  # Windows has one place per file
            file.seek(offset)
            return file.readinto(target) or 0


def read_text(path: str | os.PathLike[str]) -> str:
    """A UTF-8 file's text. Raises UsageError where it is none or cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{os.fspath(path)}: is not UTF-8 text: save it as UTF-8") from error
