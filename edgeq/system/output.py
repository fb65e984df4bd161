"""Files that are written whole, or not at all."""

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeq.errors import OutputError
from edgeq.system.mapped import lost

_WINDOWS = os.name == "nt"
_OPEN_FILES = "/proc/self/fd"  # where a file without a name can be found, to get one
_LOCK = "lock"  # in a temporary folder, held by its owner

Chunk = Any  # whatever memoryview() takes: bytes, or a C-contiguous NumPy array of any dtype


class OutputFile:
    """A file of `nbytes` bytes that takes the place of `path` when its `with` block ends without an exception.

    Until then the bytes go to a temporary file beside it, which is fsynced and renamed, or removed after any exception:
    then an existing `path` stays as it was. Through a link, what it points to is replaced. What nobody writes is zero.

    Where the file system can, the temporary file has no name before it is whole: nothing is left of a process that is
    killed. Elsewhere the next one that writes `path` removes what such a process left.

    `mode` is who may use the file, of which the user's mask takes away.

    Raises FormatError where a file that is mapped became shorter meanwhile. Every failure of its own is an OutputError:
    no folder, no permission, not a regular file, a disk that is full or will be.
    """

    def __init__(self, path: str | os.PathLike[str], nbytes: int, mode: int = 0o666) -> None:
        self.path = os.fspath(path)
        self._mode = mode
        self.nbytes = nbytes
        self._target = Path(os.path.realpath(self.path))
        # Not named by the process: processes of several containers may share the folder, and their numbers.
        self._temporary = self._target.with_name(f".{self._target.name}.{os.urandom(4).hex()}.tmp")
        self._fd = -1
        self._named = True
        self._lost = lost()
        self._seeking = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._check_target()
            remove_abandoned(self._target.parent, self._target.name)
            self._open()
        except OSError as error:
            raise self._failure(error) from None
        return self

    def put(self, chunk: Chunk, offset: int) -> None:
        """Write `chunk` at a place of the file. Several threads may do so at once."""
        data = memoryview(chunk).cast("B")
        try:
            while data:
                n = self._write(data[: 1 << 30], offset)
                data, offset = data[n:], offset + n
        except OSError as error:
            self._check_sources()
            raise self._failure(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._complete()
                self._check_sources()
                os.ftruncate(self._fd, self.nbytes)  # zeros at the end have not been written
                os.fsync(self._fd)
                self._name()
                if _WINDOWS:  # which renames no open file
                    self._close()
                os.replace(self._temporary, self._target)
                _sync(self._target.parent)
        except OSError as failure:
            raise self._failure(failure) from None
        finally:
            self._close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def _open(self) -> None:
        nameless = getattr(os, "O_TMPFILE", 0)  # Linux, and there most local file systems
        if nameless and os.path.isdir(_OPEN_FILES):
            with contextlib.suppress(OSError):
                self._fd = os.open(self._target.parent, os.O_RDWR | nameless, self._mode)
                self._named = False
                _lock(self._fd)
                return
        while self._fd < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._fd = os.open(self._temporary, flags, self._mode)
            _lock(self._fd)
            if not self._temporary.exists():  # another process took it for an abandoned one before it was locked
                self._close()

    def _name(self) -> None:
        """Give the whole file its temporary name: to have the target's it must be renamed."""
        if self._named:
            return
        place = f"{_OPEN_FILES}/{self._fd}"
        try:
            # A folder is given, which an absolute path ignores: only so does Python ask to follow the link in /proc.
            os.link(place, self._temporary, src_dir_fd=self._fd, follow_symlinks=True)
        except (OSError, NotImplementedError):  # some systems forbid links: Android
            import shutil

            def of_mode(name: str, flags: int) -> int:
                return os.open(name, flags, self._mode)

            with open(place, "rb") as whole, open(self._temporary, "xb", opener=of_mode) as copy:
                _lock(copy.fileno())
                shutil.copyfileobj(whole, copy)
                copy.flush()
                os.fsync(copy.fileno())

    def _write(self, data: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._fd, data, offset)
        with self._seeking:  # Windows has one place per file
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.write(self._fd, data)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _check_sources(self) -> None:
        """FormatError for a mapped file that became shorter since this began: it may have been written from that."""
        for source in lost() - self._lost:
            source.check()

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


def folder_of(path: str | os.PathLike[str]) -> Path:
    """The folder that a file is to be written to. OutputError if it does not exist."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise OutputError(f"{os.fspath(path)}: the folder {folder} does not exist: create it first")
    return folder


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, which others cannot write to, whatever the user's mask. Raises OSError."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(0o755, exist_ok=True)


def write_file(path: str | os.PathLike[str], content: bytes, mode: int = 0o666) -> None:
    """Write a file whole or not at all, for those whom `mode` names. OutputError if it cannot be."""
    with OutputFile(path, len(content), mode) as file:
        file.put(content, 0)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target`, for what that is made of; removed at the end, with what is left in it.

    Where the process is killed, the next one that makes `target` removes it. Raises OSError if it cannot be made.
    """
    remove_abandoned(target.parent, target.name)
    fd = -1
    while fd < 0:
        folder = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
        folder.mkdir(0o700)
        with contextlib.suppress(FileNotFoundError):  # taken for an abandoned one before it was locked
            fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            _lock(fd)
            if not (folder / _LOCK).exists():
                os.close(fd)
                fd = -1
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            _empty(folder)
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(folder / _LOCK)
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove temporary files and folders of `name`, or of all files, in a folder: those whose writers were killed.

    A living writer holds a lock on its file, or on one in its folder; on Windows no open file can be removed.
    """
    pattern = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if pattern.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # locked, another user's, or gone already
                    if entry.is_dir(follow_symlinks=False):
                        _remove_unlocked_folder(Path(entry.path))
                    else:
                        _remove_unlocked(entry.path)


def _remove_unlocked_folder(folder: Path) -> None:
    """The lock goes last, so that what is ended here is gone on with; without one a folder is empty."""
    with contextlib.suppress(FileNotFoundError):
        _remove_unlocked(os.fspath(folder / _LOCK), lambda: _empty(folder))
    os.rmdir(folder)


def _empty(folder: Path) -> None:
    """Remove all that can be removed but the lock."""
    import shutil

    for entry in list(os.scandir(folder)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.name != _LOCK:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _remove_unlocked(path: str, first: Callable[[], None] = lambda: None) -> None:
    """`first` is what is to be removed before it."""
    if _WINDOWS:
        os.rename(path, path)  # fails while it is open
        first()
        os.unlink(path)
        return
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        first()
        os.unlink(path)
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Tell other processes that the file has a living writer, for as long as it is open."""
    with contextlib.suppress(ImportError, OSError):  # Windows, and file systems without locks: nobody can lock there
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX)


def _sync(folder: Path) -> None:
    """Make the renaming itself last, where the file system can."""
    if not _WINDOWS:
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
