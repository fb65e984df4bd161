"""Files of evaluated texts: `.eqp`. Source of the layout: `formats/prefix.md`."""

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ChecksumError, FormatError, NotFoundError
from edgeq.system.input import InputFile
from edgeq.system.json_input import parse_json
from edgeq.system.output import OutputFile

MAGIC = b"\x89EQP\r\n\x1a\n"
VERSION = 1
_PREFIX = struct.Struct("<8sIQI")
_ALIGNMENT, _MOST_HEADER = 64, 64 << 20
_DAMAGED = "it is damaged: make it again"


@dataclass(frozen=True)
class PagesOf:
    """Pages of a group of layers, by their numbers."""

    window: int | None
    page_bytes: int
    page_positions: int
    pages: Mapping[int, npt.NDArray[np.uint8]]


def write_prefix(
    path: str | os.PathLike[str],
    key: Mapping[str, str],
    tokens: Sequence[int],
    states: Sequence[PagesOf],
    about: Mapping[str, Any],
) -> None:
    """Write a text's tokens and pages, whole or not at all. `key` says what it fits: model, name, kv, rope.

    Raises OutputError if that cannot be.
    """
    ids = np.asarray(tokens, "<u4")
    chunks: list[npt.NDArray[Any]] = [ids, *(page for state in states for page in state.pages.values())]
    crcs = [f"{zlib.crc32(chunk.data):08x}" for chunk in chunks]
    begin = _ALIGNMENT
    while True:  # offsets are written in the header, whose length they depend on
        offsets = _places(begin, [chunk.nbytes for chunk in chunks])
        header = _header(key, len(ids), states, about, offsets, crcs, offsets[-1])
        if _PREFIX.size + len(header) <= begin:
            break
        begin = _aligned(_PREFIX.size + len(header))
    with OutputFile(path, offsets[-1], 0o600) as file:
        file.put(_PREFIX.pack(MAGIC, VERSION, len(header), zlib.crc32(header)) + header, 0)
        for chunk, offset in zip(chunks, offsets, strict=False):
            if chunk.nbytes:
                file.put(chunk, offset)


def _places(begin: int, sizes: Sequence[int]) -> list[int]:
    """Where each begins, and the end of the last."""
    offsets, end = [], begin
    for size in sizes:
        offsets.append(_aligned(end))
        end = offsets[-1] + size
    return [*offsets, end]


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _header(
    key: Mapping[str, str],
    count: int,
    states: Sequence[PagesOf],
    about: Mapping[str, Any],
    offsets: Sequence[int],
    crcs: Sequence[str],
    nbytes: int,
) -> bytes:
    places = iter(list(zip(offsets, crcs, strict=False))[1:])
    document = {
        "file_bytes": nbytes,
        **key,
        "tokens": {"count": count, "offset": offsets[0], "crc32": crcs[0]},
        "states": [
            {
                "window": state.window,
                "page_bytes": state.page_bytes,
                "page_positions": state.page_positions,
                "pages": [
                    {"number": number, "offset": offset, "crc32": crc}
                    for number, (offset, crc) in zip(state.pages, places, strict=False)
                ],
            }
            for state in states
        ],
        "about": dict(about),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _number(page: Mapping[str, Any]) -> int:
    number = page["number"]
    if type(number) is not int or number < 0:
        raise ValueError
    return number


class PrefixFile:
    """An open file of that kind, whose header is sound.

    key: what it fits; tokens: their ids; groups: of each (window, page bytes, positions), and the numbers of its pages
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """FormatError, ChecksumError, each one line, for a file that is none or is damaged."""
        self.path = os.fspath(path)
        try:
            self._file = InputFile(path)
        except FileNotFoundError:
            raise NotFoundError(f"{self.path}: no such file: check its name") from None
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be opened: {error.strerror}") from None
        try:
            document = self._document()
            self.key = {name: str(document[name]) for name in ("model", "name", "kv", "rope")}
            self.about = document["about"]
            if not isinstance(self.about, dict):
                raise ValueError
            self.groups = [(each["window"], each["page_bytes"], each["page_positions"]) for each in document["states"]]
            self._pages = [{_number(page): page for page in each["pages"]} for each in document["states"]]
            count = document["tokens"]["count"]
            ids = np.empty(self._inside(document["tokens"]["offset"], 4 * count) // 4, "<u4")
            self._read(document["tokens"], ids.data.cast("B") if count else memoryview(b""))
            self.tokens: list[int] = ids.tolist()
        except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
            self.close()
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self.path}: its header is not one of an .eqp file: {_DAMAGED}") from None
        except BaseException:
            self.close()
            raise

    def _document(self) -> dict[str, Any]:
        size = self._file.nbytes
        head = self._file.read(_PREFIX.size, 0)
        if head[: len(MAGIC)] != MAGIC:
            raise FormatError(f"{self.path}: is not an .eqp file: `edgeq prefix` makes one")
        if len(head) < _PREFIX.size:
            raise FormatError(f"{self.path}: is cut off: {_DAMAGED}")
        _, version, length, crc = _PREFIX.unpack(head)
        if version != VERSION:
            raise FormatError(f"{self.path}: is of version {version}, this edgeq reads {VERSION}: make it again")
        if length > min(size, _MOST_HEADER):
            raise FormatError(f"{self.path}: is cut off: {_DAMAGED}")
        header = self._file.read(length, _PREFIX.size)
        if zlib.crc32(header) != crc:
            raise ChecksumError(f"{self.path}: the checksum of its header is wrong: {_DAMAGED}")
        document = parse_json(header)
        if not isinstance(document, dict):
            raise ValueError
        if document["file_bytes"] != size:
            raise FormatError(f"{self.path}: has {size} bytes instead of {document['file_bytes']}: {_DAMAGED}")
        return document

    def numbers(self, group: int) -> list[int]:
        """Numbers of a group's pages."""
        return list(self._pages[group])

    def read_page(self, group: int, number: int, target: npt.NDArray[np.uint8]) -> None:
        """Read a page, checked, into u8 `target`."""
        entry = self._pages[group][number]
        try:
            self._inside(entry["offset"], target.nbytes)
            self._read(entry, target.data)
        except (KeyError, TypeError):
            raise FormatError(f"{self.path}: its header is not one of an .eqp file: {_DAMAGED}") from None

    def _inside(self, offset: Any, nbytes: Any) -> int:
        """`nbytes`, if they lie within the file."""
        if type(offset) is not int or type(nbytes) is not int or min(offset, nbytes) < 0:
            raise TypeError
        if offset + nbytes > self._file.nbytes:
            raise FormatError(f"{self.path}: points outside itself: {_DAMAGED}")
        return nbytes

    def _read(self, entry: Mapping[str, Any], target: memoryview) -> None:
        try:
            done = self._file.read_into(target, entry["offset"]) if len(target) else 0
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read: {error.strerror}") from None
        if done != len(target) or f"{zlib.crc32(target):08x}" != entry["crc32"]:
            raise ChecksumError(f"{self.path}: a checksum is wrong: {_DAMAGED}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
