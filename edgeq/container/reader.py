"""Opens a `.eqf` file: reads the header, maps the rest read-only."""

import mmap
import os
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeq.container.header import header_bytes, parse
from edgeq.container.placement import PAGE, PREFIX_BYTES, AssetInfo, TensorInfo
from edgeq.errors import ChecksumError, FormatError, NotFoundError, UsageError
from edgeq.system.input import InputFile, IrregularError
from edgeq.system.mapped import FileMap

__all__ = ["AssetInfo", "File", "TensorInfo", "open_file"]

_CHUNK = 4 << 20
_AHEAD = 512 << 10  # Linux reads no more than about a MiB for one request, however long that is

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class File:
    """An open `.eqf` file. Opening costs the header only; tensors are pages of the file until they are read.

    path      what messages call it: as given to open_file, or to `edgeq.load`
    metadata  dict: "architecture" (str), "config" (the checkpoint's config.json), provenance
    tensors   name -> TensorInfo, in the file's order
    assets    name -> AssetInfo
    requires  names of features that a reader must know to read it rightly; most files require none
    nbytes    bytes of the file
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """FormatError, ChecksumError or UnsupportedError, each one line, if the file is not a sound `.eqf` file."""
        self.path = os.fspath(path)
        try:
            self._file = InputFile(path)
        except FileNotFoundError:
            raise NotFoundError(f"{self.path}: no such file: check its name") from None
        except (IsADirectoryError, IrregularError) as e:
            kind = "a folder" if isinstance(e, IsADirectoryError) else "not a regular file"
            raise FormatError(f"{self.path}: is {kind}: give an .eqf file (`edgeq convert` makes one)") from None
        except OSError as e:
            raise FormatError(f"{self.path}: cannot be opened: {e.strerror}: check its name and permissions") from None
        try:
            self.nbytes = self._file.nbytes
            version, length, crc = header_bytes(self.path, self._read(PREFIX_BYTES, 0), self.nbytes)
            header = parse(self.path, version, self._read(length, PREFIX_BYTES), crc, self.nbytes)
            self._map: FileMap | None = FileMap(self._file.fd, self.path)
        except BaseException as e:
            self._file.close()
            if isinstance(e, OSError):
                raise self._unreadable(e) from None
            raise
        self.metadata: dict[str, Any] = header.metadata
        self.tensors: dict[str, TensorInfo] = header.tensors
        self.assets: dict[str, AssetInfo] = header.assets
        self.requires: tuple[str, ...] = header.requires

    @property
    def recipe(self) -> str:
        """The name of what it was converted by; of one that was imported the type that most bytes are of."""
        provenance = self.metadata.get("provenance")
        told = provenance.get("recipe") if isinstance(provenance, dict) else None
        if isinstance(told, str) and told.isidentifier():  # and not "imported from GGUF"
            return told
        sizes = Counter[str]()
        for tensor in self.tensors.values():
            sizes[tensor.type] += tensor.nbytes
        return max(sizes, key=sizes.__getitem__, default="")

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of tensor `name`, u8[nbytes], 64-byte aligned: a read-only view of the map, no copy.

        KeyError if there is no such tensor; UsageError if the file is closed. The view stays valid after close().
        """
        info = self.tensors[name]
        return np.frombuffer(self._mapped(), np.uint8, info.nbytes, info.offset)

    def read_ahead(self, but: Collection[str] = ()) -> None:
        """Have the system read the file from the disk in the background, in order, `but` for these tensors; returns at
        once.

        Otherwise its pages come as the threads of a model touch them, each in a part of its own: on a disk that reads
        little ahead by itself that takes several times as long. Nothing is read that is in memory already.
        """
        self._mapped()
        if hasattr(os, "posix_fadvise"):
            parts = self._parts(but)
            threading.Thread(target=_read_ahead, args=(os.dup(self._file.fd), parts), daemon=True).start()

    def let_go(self, name: str) -> None:
        """Take the pages of tensor `name` off this process, whose memory they count as. They come back from the
        system's cache, or from the disk, as they are read."""
        info = self.tensors[name]
        start = info.offset // PAGE * PAGE
        length = min(info.offset + info.nbytes, self.nbytes) - start
        if hasattr(mmap, "MADV_DONTNEED") and length > 0:
            self._mapped().madvise(mmap.MADV_DONTNEED, start, length)

    def read_through(self, progress: Progress) -> None:
        """Read the whole file from the disk, in order, into the system's page cache; `progress` hears bytes done, and
        bytes in all. Raises UsageError if the file is closed, FormatError if it cannot be read."""
        self._mapped()
        buffer = memoryview(bytearray(_AHEAD))
        for offset in range(0, self.nbytes, _AHEAD):
            self._read_into(buffer, offset)
            progress(min(offset + _AHEAD, self.nbytes), self.nbytes)

    def _parts(self, but: Collection[str]) -> list[range]:
        """Bytes of the file, without those of some tensors."""
        left_out = sorted((self.tensors[name] for name in but if name in self.tensors), key=lambda info: info.offset)
        starts = [0, *(info.offset + info.nbytes for info in left_out)]
        ends = [*(info.offset for info in left_out), self.nbytes]
        return [range(start, end) for start, end in zip(starts, ends, strict=True) if start < end]

    def asset(self, name: str) -> bytes:
        """A copy of asset `name`. KeyError if there is none; ChecksumError if its bytes are damaged; FormatError if
        they cannot be read; UsageError if the file is closed."""
        self._mapped()
        info = self.assets[name]
        content = self._read(info.nbytes, info.offset)
        if zlib.crc32(content) != info.crc32:
            raise self._damaged("asset", name)
        return content

    def verify(self, progress: Progress | None = None, threads: int = 2) -> None:
        """Check every byte of every tensor and asset against its checksum; ChecksumError names the first damaged one.
        FormatError if one cannot be read.

        Reads by small chunks, so that memory does not grow with the file; zlib releases the GIL, so threads help.
        """
        from concurrent.futures import ThreadPoolExecutor

        self._mapped()
        entries: list[tuple[str, TensorInfo | AssetInfo]] = [("tensor", t) for t in self.tensors.values()]
        entries += [("asset", a) for a in self.assets.values()]
        total, done = sum(e.nbytes for _, e in entries), 0
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            results = pool.map(lambda entry: self._crc(entry[1]), entries)
            try:
                for (kind, entry), crc in zip(entries, results, strict=True):
                    if crc != entry.crc32:
                        raise self._damaged(kind, entry.name)
                    done += entry.nbytes
                    if progress:
                        progress(done, total)
            finally:
                pool.shutdown(cancel_futures=True)

    def check(self) -> None:
        """FormatError if the file became shorter since it was opened, or a part of it could not be read: what was
        computed of its tensors is worthless. Nothing for a closed file."""
        if self._map is not None:
            self._map.check()

    def close(self) -> None:
        """Drop the map and the file; views from data() keep the map alive for as long as they are used.

        So does dropping a file without closing it.
        """
        self._map = None
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.check()
        finally:
            self.close()

    def _mapped(self) -> FileMap:
        if self._map is None:
            raise UsageError(f"{self.path}: the file is closed: open it again")
        return self._map

    def _crc(self, entry: TensorInfo | AssetInfo) -> int:
        crc, offset, end = 0, entry.offset, entry.offset + entry.nbytes
        buffer = memoryview(bytearray(min(_CHUNK, entry.nbytes)))
        while offset < end:
            chunk = buffer[: self._read_into(buffer[: end - offset], offset)]
            if not chunk:
                raise FormatError(f"{self.path}: became shorter while it was read")
            crc = zlib.crc32(chunk, crc)
            offset += len(chunk)
        return crc

    def _read(self, nbytes: int, offset: int) -> bytes:
        """As of InputFile, of which any place may lie on a part of the disk that fails."""
        try:
            return self._file.read(nbytes, offset)
        except OSError as error:
            raise self._unreadable(error) from None

    def _read_into(self, target: memoryview, offset: int) -> int:
        try:
            return self._file.read_into(target, offset)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> FormatError:
        why = error.strerror or error
        return FormatError(f"{self.path}: cannot be read: {why}: check the disk, or copy or convert the file again")

    def _damaged(self, kind: str, name: str) -> ChecksumError:
        return ChecksumError(f"{self.path}: the checksum of {kind} {name!r} is wrong: copy or convert the file again")


def _read_ahead(fd: int, parts: list[range]) -> None:
    try:
        for part in parts:
            for offset in part[::_AHEAD]:
                os.posix_fadvise(fd, offset, min(_AHEAD, part.stop - offset), os.POSIX_FADV_WILLNEED)
    finally:
        os.close(fd)


def open_file(path: str | os.PathLike[str]) -> File:
    """Open `path`: see File."""
    return File(path)
