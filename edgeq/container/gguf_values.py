"""GGUF's metadata values: reading and writing them. Source: docs/gguf.md of ggml."""

import os
import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from edgeq.system.input import read_bytes

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32  # where general.alignment does not say otherwise
ALIGNMENT_KEY = "general.alignment"
METADATA_ASSET = "metadata.gguf"  # of an imported model: the file's metadata as a GGUF file without tensors
_HEAD = "<4sIQQ"  # magic, version, tensors, keys

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALARS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
_LEAST_BYTES = {STRING: 8, ARRAY: 12} | {kind: struct.calcsize(code) for kind, code in SCALARS.items()}
_NESTING = 4  # arrays of arrays that are read
# In one file, each of which costs memory and time of its own: vocabularies have half a million strings, with merges
MOST_STRINGS, MOST_ARRAYS, MOST_KEYS = 1 << 21, 1 << 16, 1 << 16


_FLAGS = bytes([0, *[1] * 255])


@dataclass(frozen=True)
class Typed:
    """A metadata value to be written: `kind` is GGUF's type, `element` that of an array's elements."""

    kind: int
    value: Any
    element: int = STRING


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether this is a file that begins as GGUF files do."""
    try:
        return read_bytes(path, len(MAGIC)) == MAGIC
    except OSError:
        return False


class Cursor:
    """Reads numbers and strings one after another; `fail` is called, and must raise, for what cannot be."""

    def __init__(self, data: memoryview, fail: Callable[[str], NoReturn]) -> None:
        self.data = data
        self.at = 0
        self.fail = fail
        self._strings, self._arrays = MOST_STRINGS, MOST_ARRAYS

    def take(self, nbytes: int, what: str) -> memoryview:
        """The next bytes."""
        if nbytes > len(self.data) - self.at:
            self.fail(f"is truncated inside {what} (byte {self.at} of {len(self.data)})")
        part = self.data[self.at : self.at + nbytes]
        self.at += nbytes
        return part

    def number(self, kind: int, what: str) -> Any:
        """One scalar."""
        code = "<" + SCALARS[kind]
        part = self.take(struct.calcsize(code), what)
        if kind == BOOL:
            return part[0] != 0
        return struct.unpack(code, part)[0]

    def string(self, what: str) -> str:
        """One string; bytes that are no UTF-8 come as lone surrogates."""
        length = self.number(U64, what)
        return str(self.take(length, what), "utf-8", "surrogateescape")

    def strings(self, number: int, what: str) -> list[str]:
        """So many strings, as `string` gives them: a vocabulary is mostly these, so none takes a call of its own."""
        self._strings -= number
        if self._strings < 0:
            self.fail(f"has more than {MOST_STRINGS} strings in arrays, with {what}")
        data, length, at, found = self.data, struct.Struct("<Q").unpack_from, self.at, []
        last = len(data) - 8
        for _ in range(number):
            start = at + 8
            end = start + length(data, at)[0] if at <= last else len(data) + 1
            if end > len(data):
                self.at = at
                self.string(what)  # fails, and says where
            found.append(str(data[start:end], "utf-8", "surrogateescape"))
            at = end
        self.at = at
        return found

    def count(self, least: int, what: str) -> int:
        """A number of things that take at least `least` bytes each."""
        number: int = self.number(U64, what)
        if number * least > len(self.data) - self.at:
            self.fail(f"claims {number} {what}, more than its {len(self.data)} bytes can hold")
        return number

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        """A value of a type. Arrays of strings and of arrays are lists, those of numbers array.array; flags in them are
        bytes of 0 and 1."""
        if kind == STRING:
            return self.string(what)
        if kind in SCALARS:
            return self.number(kind, what)
        if kind != ARRAY:
            self.fail(f"has the unknown value type {kind} in {what}")
        if depth == _NESTING:
            self.fail(f"nests arrays too deep in {what}")
        self._arrays -= 1
        if self._arrays < 0:
            self.fail(f"has more than {MOST_ARRAYS} arrays, with {what}")
        element = self.number(U32, what)
        if element not in _LEAST_BYTES:
            self.fail(f"has an array of the unknown value type {element} in {what}")
        number = self.count(_LEAST_BYTES[element], f"elements of {what}")
        if element in SCALARS:
            code = SCALARS[element]
            part = self.take(number * struct.calcsize("<" + code), what)
            if element == BOOL:
                return array("B", bytes(part).translate(_FLAGS))
            values = array(code)
            values.frombytes(part)
            if sys.byteorder == "big":
                values.byteswap()
            return values
        if element == STRING:
            return self.strings(number, what)
        return [self.value(element, what, depth + 1) for _ in range(number)]


def render_string(text: str) -> bytes:
    """Length and UTF-8 bytes."""
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def render_value(typed: Typed) -> bytes:
    """A value without its type."""
    if typed.kind == STRING:
        return render_string(typed.value)
    if typed.kind != ARRAY:
        return struct.pack("<" + SCALARS[typed.kind], typed.value)
    head = struct.pack("<IQ", typed.element, len(typed.value))
    if typed.element == STRING:
        return head + b"".join(map(render_string, typed.value))
    return head + struct.pack(f"<{len(typed.value)}{SCALARS[typed.element]}", *typed.value)


def render_metadata(values: dict[str, Typed]) -> bytes:
    """All keys and values as they lie in a file."""
    return b"".join(
        render_string(key) + struct.pack("<I", typed.kind) + render_value(typed) for key, typed in values.items()
    )


def without_tensors(keys: int, metadata: bytes) -> bytes:
    """A GGUF file that has no tensors, of metadata as it lies in one."""
    return struct.pack(_HEAD, MAGIC, VERSION, 0, keys) + metadata


def without_keys(data: bytes, dropped: Callable[[str], bool], fail: Callable[[str], NoReturn]) -> bytes:
    """The GGUF file without tensors `data` less the keys that are to be dropped."""
    cursor = Cursor(memoryview(data), fail)
    kept: list[bytes] = []
    *_, keys = struct.unpack(_HEAD, cursor.take(struct.calcsize(_HEAD), "its header"))
    if keys > MOST_KEYS:
        fail(f"claims {keys} metadata keys")
    for _ in range(keys):
        start = cursor.at
        key = cursor.string("a key")
        cursor.value(cursor.number(U32, key), key)
        if not dropped(key):
            kept.append(data[start : cursor.at])
    return without_tensors(len(kept), b"".join(kept))
