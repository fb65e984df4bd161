"""Writes a `.eqf` file: whole and checked, or not at all."""

import contextlib
import errno
import os
import shutil
import stat
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeq.container.header import ASSET_NAME, TENSOR_NAME, render
from edgeq.container.layout import PAGE, PREFIX_BYTES, AssetInfo, TensorInfo, TensorSpec, align, place
from edgeq.errors import OutputError

__all__ = ["TensorSpec", "Writer"]

Chunk = Any  # whatever memoryview() takes: bytes, or a C-contiguous NumPy array of any dtype


class Writer:
    """Writes the tensors of one file in any order, each as one or more chunks appended one after another.

        with Writer("m.eqf", [TensorSpec("output_norm.weight", (64,), "F32")], metadata, assets) as w:
            w.write("output_norm.weight", chunk)

    The bytes go to a temporary file beside `path`, which takes its place (fsynced, renamed) when the `with` block
    ends without an exception and every tensor is complete; on any exception it is removed and an existing `path`
    stays as it was.

    `metadata` needs "architecture" (str) and "config" (dict) and must be JSON. Raises OutputError if the file
    cannot be written (no folder, no permission, disk full), UnsupportedError if a type cannot hold a tensor's
    shape, ValueError for a name given twice, a chunk too many or a tensor left incomplete.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tensors: Sequence[TensorSpec],
        metadata: dict[str, Any],
        assets: Mapping[str, bytes],
    ) -> None:
        self.path = os.fspath(path)
        _check_names(tensors, metadata, assets)
        self._metadata = metadata
        self._contents = dict(assets)
        placed, self._assets, self.nbytes = _fit(tensors, metadata, assets)
        self._tensors: dict[str, TensorInfo] = {t.name: t for t in placed}
        self._written = dict.fromkeys(self._tensors, 0)
        self._crc = dict.fromkeys(self._tensors, 0)
        self._target = Path(os.path.realpath(self.path))  # through a link, what it points to is replaced
        self._temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._check_target()
            self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as e:
            raise self._failure(e) from None
        return self

    def tensor_bytes(self, name: str) -> int:
        """Bytes of tensor `name` in the file. KeyError if there is none."""
        return self._tensors[name].nbytes

    def write(self, name: str, chunk: Chunk) -> None:
        """Append `chunk` to tensor `name`. Different tensors may be written by different threads at once."""
        data = memoryview(chunk).cast("B")
        info, done = self._tensors[name], self._written[name]
        if done + len(data) > info.nbytes:
            raise ValueError(f"tensor {name!r} has {info.nbytes} bytes, {done + len(data)} were written")
        self._crc[name] = zlib.crc32(data, self._crc[name])
        self._put(data, info.offset + done)
        self._written[name] = done + len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        except OSError as e:
            raise self._failure(e) from None
        finally:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)

    def _commit(self) -> None:
        for name, info in self._tensors.items():
            if self._written[name] != info.nbytes:
                raise ValueError(f"tensor {name!r} has {info.nbytes} bytes, only {self._written[name]} were written")
        assets: list[AssetInfo] = []
        for a in self._assets:
            content = self._contents[a.name]
            self._put(memoryview(content), a.offset)
            assets.append(AssetInfo(a.name, a.offset, a.nbytes, zlib.crc32(content)))
        tensors = [
            TensorInfo(t.name, t.shape, t.type, t.offset, t.nbytes, self._crc[t.name]) for t in self._tensors.values()
        ]
        self._put(memoryview(render(self._metadata, tensors, assets, self.nbytes)), 0)
        os.ftruncate(self._fd, self.nbytes)  # an empty last section leaves the end unwritten
        os.fsync(self._fd)
        os.replace(self._temporary, self._target)
        if os.name == "posix":
            folder = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _put(self, data: memoryview, offset: int) -> None:
        try:
            while data:
                n = os.pwrite(self._fd, data[: 1 << 30], offset)
                data, offset = data[n:], offset + n
        except OSError as e:
            raise self._failure(e) from None

    def _check_target(self) -> None:
        """OutputError if the target cannot be a file or the disk cannot hold it."""
        if self._target.exists() and not stat.S_ISREG(self._target.stat().st_mode):
            raise OutputError(f"{self.path}: is not a regular file: give the name of a file to write")
        if not self._target.parent.is_dir():
            raise OutputError(f"{self.path}: the folder {self._target.parent} does not exist: create it first")
        free = shutil.disk_usage(self._target.parent).free
        if free < self.nbytes:
            need, have = self.nbytes / 1e6, free / 1e6
            raise OutputError(f"{self.path}: needs {need:.1f} MB, the disk has {have:.1f} MB free: make room")

    def _failure(self, e: OSError) -> OutputError:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{self.path}: the disk is full ({self.nbytes / 1e6:.1f} MB needed): make room")
        if e.errno == errno.EFBIG:
            return OutputError(f"{self.path}: {self.nbytes / 1e6:.1f} MB is more than a file may have here")
        return OutputError(f"{self.path}: cannot be written: {e.strerror or e}")


def _check_names(tensors: Sequence[TensorSpec], metadata: dict[str, Any], assets: Mapping[str, bytes]) -> None:
    names = [t.name for t in tensors]
    for name in names:
        if not TENSOR_NAME.match(name):
            raise ValueError(f"tensor name {name!r} is not allowed")
    for name in assets:
        if not ASSET_NAME.match(name):
            raise ValueError(f"asset name {name!r} is not allowed")
    if len(set(names)) != len(names):
        raise ValueError("a tensor name is given twice")
    if not isinstance(metadata.get("architecture"), str) or not isinstance(metadata.get("config"), dict):
        raise ValueError("metadata needs 'architecture' (a string) and 'config' (an object)")


def _fit(
    tensors: Sequence[TensorSpec], metadata: dict[str, Any], assets: Mapping[str, bytes]
) -> tuple[list[TensorInfo], list[AssetInfo], int]:
    """Place everything behind a header whose length depends on the places: grows page by page until it fits."""
    start = PAGE
    while True:
        placed, kept, nbytes = place(tensors, assets, start)
        header = len(render(metadata, placed, kept, nbytes))
        if header <= start:
            return placed, kept, nbytes
        start = align(header, PAGE)
        assert start > PREFIX_BYTES
