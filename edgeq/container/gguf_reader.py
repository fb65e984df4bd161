"""Opens GGUF files, version 2 and 3, whole or split: checks everything that a damaged or hostile one could claim."""

import contextlib
import mmap
import os
import re
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from edgeq.blocks.gguf_types import GGUF_TYPES, GgufType
from edgeq.container.gguf_values import ALIGNMENT, ALIGNMENT_KEY, MAGIC, MOST_KEYS, U32, U64, VERSION, Cursor
from edgeq.container.placement import align
from edgeq.errors import FormatError, NotFoundError, UnsupportedError
from edgeq.system.input import IrregularError, open_regular
from edgeq.system.mapped import FileMap

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf\Z")
_MOST_DIMENSIONS = 4
_KEY_BYTES, _TENSOR_BYTES = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # the least that an entry takes
_LARGEST_ALIGNMENT = 1 << 20
_MOST_TENSORS = 1 << 16
_AGAIN = "download or copy it again"
# Once used for types that had been re-ordered for one CPU, or were dropped
_DROPPED = {4, 5, 31, 32, 33, 36, 37, 38}
# BitNet's own program has these numbers for types whose order of weights depends on the machine that wrote a file,
# of which the file does not tell; llama.cpp had other ones for a while
_BITNETS = {36: "I2_S", 37: "I8_S", 38: "TL1"}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a file: shape outermost first ([outputs, inputs] for a matrix), place in bytes from its start."""

    name: str
    shape: tuple[int, ...]
    type: GgufType
    offset: int
    nbytes: int


class _Part:
    """One GGUF file, mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self.map = _map(path)
        try:
            self._read(memoryview(self.map))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(BufferError):  # a view from data() keeps the map alive for as long as it is used
            self.map.close()

    def fail(self, what: str) -> NoReturn:
        raise FormatError(f"{self.path}: {what}: {_AGAIN}")

    def _read(self, data: memoryview) -> None:
        try:
            cursor = Cursor(data, self.fail)
            self._version(cursor)
            tensors = cursor.count(_TENSOR_BYTES, "tensors")
            keys = cursor.count(_KEY_BYTES, "metadata keys")
            for number, most, what in ((tensors, _MOST_TENSORS, "tensors"), (keys, MOST_KEYS, "metadata keys")):
                if number > most:
                    self.fail(f"has {number} {what}, more than the {most} that are read")
            own: list[slice] = []
            for _ in range(keys):
                start = cursor.at
                key = cursor.string("a metadata key")
                if not key:
                    self.fail("has a metadata key without a name")
                if key in self.metadata:
                    self.fail(f"has the metadata key {key[:80]!r} twice")
                self.metadata[key] = cursor.value(cursor.number(U32, "a metadata type"), f"metadata {key[:80]!r}")
                if not key.startswith("split."):
                    own.append(slice(start, cursor.at))
            self.own = own
            self.count = self._count()
            self.alignment = self._alignment()
            entries = [self._tensor(cursor) for _ in range(tensors)]
            self._place(entries, align(cursor.at, self.alignment), len(data))
        finally:
            data.release()

    def _version(self, cursor: Cursor) -> None:
        if (magic := bytes(cursor.data[:4])) != MAGIC:
            if magic[1:4] == b"EQF":
                raise FormatError(f"{self.path}: is an .eqf file already: it runs as it is")
            first = f"its first bytes are {magic.hex(' ')}"
            raise FormatError(f"{self.path}: is not a GGUF file ({first}): give a .gguf file")
        cursor.at = len(MAGIC)
        version = cursor.number(U32, "its version")
        if version and not version & 0xFFFF:
            raise UnsupportedError(f"{self.path}: is a big-endian GGUF file: convert the model to a little-endian one")
        if version not in (2, VERSION):
            raise UnsupportedError(f"{self.path}: is GGUF version {version}, readable are 2 and 3: convert it again")

    def _count(self) -> int:
        """Files of the model; 0, which merging leaves behind, is one."""
        value = self.metadata.get("split.count", 0)
        if type(value) is not int or value < 0:
            self.fail(f"has split.count {str(value)[:40]}, a number of files is needed")
        return value

    def _alignment(self) -> int:
        value = self.metadata.get(ALIGNMENT_KEY, ALIGNMENT)
        if type(value) is not int or not 0 < value <= _LARGEST_ALIGNMENT or value & (value - 1):
            self.fail(f"has {ALIGNMENT_KEY} {str(value)[:40]}, a power of two is needed")
        return value

    def _tensor(self, cursor: Cursor) -> tuple[str, tuple[int, ...], GgufType, int]:
        """Name, shape, type and offset of an entry."""
        name = cursor.string("a tensor's name")
        where = f"tensor {name[:80]!r}"
        dims = cursor.number(U32, where)
        if not 1 <= dims <= _MOST_DIMENSIONS:
            self.fail(f"{where} has {dims} dimensions, 1 to {_MOST_DIMENSIONS} are possible")
        shape = tuple(cursor.number(U64, where) for _ in range(dims))[::-1]
        if not all(0 < n < 1 << 31 for n in shape):
            self.fail(f"{where} has the shape {list(shape)}: dimensions from 1 to 2**31 - 1 are possible")
        number = cursor.number(U32, where)
        if number not in GGUF_TYPES:
            why = "which llama.cpp dropped" if number in _DROPPED else "which this version does not know"
            hint = "take another quantization"
            if number in _BITNETS and "bitnet" in str(self.metadata.get("general.architecture")):
                why = f"bitnet.cpp's {_BITNETS[number]}, whose order of weights the file does not tell"
                hint = "take TQ2_0, or convert the checkpoint that it was made of"
            raise UnsupportedError(f"{self.path}: {where} has type {number}, {why}: {hint}")
        return name, shape, GGUF_TYPES[number], cursor.number(U64, where)

    def _place(self, entries: list[tuple[str, tuple[int, ...], GgufType, int]], start: int, end: int) -> None:
        """Check where tensors lie, and keep them."""
        for name, shape, kind, offset in entries:
            where = f"tensor {name[:80]!r}"
            if name in self.tensors:
                self.fail(f"has {where} twice")
            if offset % self.alignment:
                self.fail(f"{where} starts at {offset}, not a multiple of {self.alignment}")
            try:
                nbytes = prod(shape[:-1]) * kind.row_bytes(shape[-1])
            except UnsupportedError as error:
                self.fail(f"{where}: {error}")
            if start + offset + nbytes > end:
                self.fail(f"is truncated: {where} ends at byte {start + offset + nbytes}, the file has {end}")
            self.tensors[name] = GgufTensor(name, shape, kind, start + offset, nbytes)
        for before, after in pairwise(sorted(self.tensors.values(), key=lambda tensor: tensor.offset)):
            if before.offset + before.nbytes > after.offset:
                self.fail(f"tensors {before.name[:80]!r} and {after.name[:80]!r} overlap")


class GgufFile:
    """An open GGUF model, of one file or several.

    path            that of the first file
    metadata        key -> value of the first file; arrays of numbers are array.array, others lists
    tensors         name -> GgufTensor, in the files' order
    files           every file
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """FormatError or UnsupportedError, each one line, if a file is not sound."""
        self._parts: list[_Part] = []
        self._owner: dict[str, _Part] = {}
        self.tensors: dict[str, GgufTensor] = {}
        try:
            self._open(Path(path))
        except BaseException:
            self.close()
            raise
        first = self._parts[0]
        self.path = str(first.path)
        self.metadata, self.keys = first.metadata, len(first.own)
        self.alignment = first.alignment

    @property
    def metadata_bytes(self) -> bytes:
        """The metadata as it lies in the file, `keys` in number, less what says how the model is split."""
        first = self._parts[0]
        return b"".join([first.map[place] for place in first.own])

    @property
    def files(self) -> list[Path]:
        """Every file, in order."""
        return [part.path for part in self._parts]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(len(part.map) for part in self._parts)

    def _open(self, path: Path) -> None:
        named = _Part(path)
        self._parts.append(named)
        paths = [path] if named.count <= 1 else self._names(named)
        for number, one in enumerate(paths):
            if one != path:
                self._parts.append(_Part(one))
            part = named if one == path else self._parts[-1]
            if len(paths) > 1 and (part.count, part.metadata.get("split.no")) != (len(paths), number):
                part.fail("is not the part of a split model that its name says")
            for name, tensor in part.tensors.items():
                if name in self.tensors:
                    part.fail(f"has tensor {name[:80]!r}, which an earlier file has too")
                self.tensors[name] = tensor
                self._owner[name] = part
        self._parts.sort(key=lambda part: part.path)
        self.check()

    @staticmethod
    def _names(part: _Part) -> list[Path]:
        """The files of the model that `part` is one of, by its name. FormatError if one is missing."""
        match = _SPLIT.match(part.path.name)
        if not match or int(match["count"]) != part.count:
            part.fail(
                f"is one of {part.count} files of a split model, but not named NAME-00001-of-{part.count:05d}.gguf"
            )
        stem, count = match["stem"], part.count
        paths = [part.path.with_name(f"{stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
        missing = [one.name for one in paths if not one.exists()]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise FormatError(f"{part.path}: {missing[0]}{more} is missing: put all {count} files into one folder")
        return paths

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """u8 [rows, row_bytes] of a tensor, rows being all but its last dimension: a view of the mapped file."""
        tensor = self.tensors[name]
        flat = np.frombuffer(self._owner[name].map, np.uint8, tensor.nbytes, tensor.offset)
        return flat.reshape(prod(tensor.shape[:-1]), -1)

    def owner(self, name: str) -> Path:
        """The file that a tensor is in."""
        return self._owner[name].path

    def release(self, name: str) -> None:
        """The tensor's pages are not needed any more: they need not stay in memory."""
        tensor = self.tensors[name]
        start = tensor.offset // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED"):
            self._owner[name].map.madvise(mmap.MADV_DONTNEED, start, tensor.offset + tensor.nbytes - start)

    def check(self) -> None:
        """FormatError if a file became shorter since it was opened: what was read of it is worthless."""
        for part in self._parts:
            part.map.check()

    def close(self) -> None:
        """Drop the maps; views from data() keep theirs alive for as long as they are used."""
        for part in self._parts:
            part.close()

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


def open_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """Open a GGUF model by any of its files: see GgufFile."""
    return GgufFile(path)


def _map(path: Path) -> FileMap:
    try:
        with open(open_regular(path), "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise FormatError(f"{path}: is empty: {_AGAIN}")
            return FileMap(file.fileno(), path)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file: give a .gguf file") from None
    except IsADirectoryError:
        raise FormatError(f"{path}: is a folder: give a .gguf file; `edgeq convert` takes checkpoints") from None
    except IrregularError:
        raise FormatError(f"{path}: is not a regular file: give a .gguf file") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be opened: {error.strerror}: give a .gguf file") from None
