"""The JSON header of a `.eqf` file: rendering it, and checking everything that a damaged or hostile one could claim.

Source of the layout: `formats/container.md`.
"""

import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from edgeq.blocks.table import BLOCK_TYPES, tensor_bytes
from edgeq.container.placement import (
    ALIGNMENT,
    MAGIC,
    MAX_HEADER_BYTES,
    PREFIX,
    PREFIX_BYTES,
    REQUIRING,
    VERSION,
    AssetInfo,
    TensorInfo,
    activation_refusal,
)
from edgeq.errors import ChecksumError, FormatError, UnsupportedError
from edgeq.system.input import read_bytes
from edgeq.system.json_input import parse_json

TENSOR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,255}\Z")
ASSET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,255}\Z")
FEATURE_NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,63}\Z")
FEATURES: frozenset[str] = frozenset()  # what a file may require that this version does; formats/README.md says more
_CRC32 = re.compile(r"[0-9a-f]{8}\Z")
_OVERWRITTEN = "it is damaged: convert or copy it again"


@dataclass(frozen=True)
class Header:
    """A checked header: nothing in it points outside the file, overlaps, or disagrees with a tensor's type."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    assets: dict[str, AssetInfo]
    requires: tuple[str, ...]


def is_eqf(path: str | os.PathLike[str]) -> bool:
    """Whether this is a file that begins as `.eqf` files do."""
    try:
        return read_bytes(path, len(MAGIC)) == MAGIC
    except OSError:
        return False


def render(
    metadata: dict[str, Any],
    tensors: Iterable[TensorInfo],
    assets: Iterable[AssetInfo],
    nbytes: int,
    requires: Sequence[str] = (),
) -> bytes:
    """Prefix and JSON. Its length does not depend on the checksums, so it can be reserved before they are known."""
    document = {
        "file_bytes": nbytes,
        **({"requires": list(requires)} if requires else {}),
        "metadata": metadata,
        "tensors": [
            {
                "name": t.name,
                "shape": list(t.shape),
                "type": t.type,
                "offset": t.offset,
                "nbytes": t.nbytes,
                "crc32": f"{t.crc32:08x}",
                **({} if t.activation_scale is None else {"activation_scale": t.activation_scale}),
            }
            for t in tensors
        ],
        "assets": [{"name": a.name, "offset": a.offset, "nbytes": a.nbytes, "crc32": f"{a.crc32:08x}"} for a in assets],
    }
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    text += b" " * (-(PREFIX_BYTES + len(text)) % ALIGNMENT)
    version = REQUIRING if requires else VERSION
    return struct.pack(PREFIX, MAGIC, version, len(text), zlib.crc32(text)) + text


def header_bytes(path: str, prefix: bytes, file_bytes: int) -> tuple[int, int, int]:
    """(version, JSON bytes, their crc32) from a file's first 24 bytes.

    FormatError if this is no `.eqf` file or it is cut short; UnsupportedError for another version.
    """
    if not prefix:
        raise FormatError(f"{path}: truncated after 0 bytes, the file is empty: copy or convert it again")
    if prefix[:8] != MAGIC[: len(prefix)]:
        if prefix[:4] == b"GGUF":
            raise FormatError(f"{path}: this is a GGUF file, not an .eqf file: run `edgeq import` first")
        if prefix[1:4] == MAGIC[1:4]:
            raise FormatError(f"{path}: damaged by a text-mode transfer: copy it again in binary mode")
        if prefix[8:9] == b"{" or prefix[:4] == b"PK\x03\x04":
            raise FormatError(f"{path}: is a checkpoint's weights, not an .eqf file: run `edgeq convert FOLDER` first")
        if prefix[1:4] == b"EQP":
            raise FormatError(f"{path}: is an evaluated text: give the model, and this by --prefix or chat's --session")
        first = prefix[:8].hex(" ")
        raise FormatError(f"{path}: not an .eqf file (its first bytes are {first}): `edgeq convert` makes one")
    if len(prefix) < PREFIX_BYTES:
        raise FormatError(f"{path}: truncated after {len(prefix)} bytes: copy or convert it again")
    _, version, length, crc = struct.unpack(PREFIX, prefix)
    if version not in (VERSION, REQUIRING):
        what = "update edgeq" if version > REQUIRING else "convert or import it again"
        known = f"versions {VERSION} and {REQUIRING}"
        raise UnsupportedError(f"{path}: format version {version}, this edgeq reads {known}: {what}")
    if length > MAX_HEADER_BYTES:
        raise FormatError(f"{path}: claims a header of {length} bytes, the limit is {MAX_HEADER_BYTES}: {_OVERWRITTEN}")
    if PREFIX_BYTES + length > file_bytes:
        raise FormatError(f"{path}: truncated inside its header ({file_bytes} bytes): copy or convert it again")
    return version, length, crc


def parse(path: str, version: int, text: bytes, crc: int, file_bytes: int) -> Header:
    """The header behind `text`, checked against the file's size.

    ChecksumError if the bytes are not those written; FormatError for anything inconsistent; UnsupportedError for
    a feature or a block type this version does not know.
    """
    if zlib.crc32(text) != crc:
        raise ChecksumError(f"{path}: the header's checksum is wrong: {_OVERWRITTEN}")
    document = _decode(path, text)
    check = _Checker(path)
    requires = check.requires(document, version)
    claimed = check.integer(document, "file_bytes", "the header")
    if file_bytes < claimed:
        raise FormatError(f"{path}: truncated, {file_bytes} of {claimed} bytes: copy or convert it again")
    if file_bytes > claimed:
        raise FormatError(f"{path}: {file_bytes - claimed} bytes longer than its header says: copy or convert it again")
    metadata = check.member(document, "metadata", dict, "the header")
    check.member(metadata, "architecture", str, "the header's metadata")
    check.member(metadata, "config", dict, "the header's metadata")
    for key in ("provenance", "gguf"):
        if key in metadata:
            check.member(metadata, key, dict, "the header's metadata")
    start = PREFIX_BYTES + len(text)
    tensors = [check.tensor(e, start, claimed) for e in check.member(document, "tensors", list, "the header")]
    assets = [check.asset(e, start, claimed) for e in check.member(document, "assets", list, "the header")]
    check.unique("tensor", [t.name for t in tensors])
    check.unique("asset", [a.name for a in assets])
    check.apart([*tensors, *assets])
    return Header(metadata, {t.name: t for t in tensors}, {a.name: a for a in assets}, requires)


def _decode(path: str, text: bytes) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a key occurs twice in one object")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        document = parse_json(text, object_pairs_hook=pairs, parse_constant=constant)
    except ValueError as e:
        raise FormatError(f"{path}: the header is not JSON ({e}): {_OVERWRITTEN}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{path}: the header is not a JSON object: {_OVERWRITTEN}")
    return document


class _Checker:
    """Checks of single header entries; every failure is one FormatError line that names the file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def fail(self, what: str) -> NoReturn:
        raise FormatError(f"{self.path}: {what}: {_OVERWRITTEN}")

    def member(self, owner: dict[str, Any], key: str, kind: type, where: str) -> Any:
        if key not in owner:
            self.fail(f"{where} has no {key!r}")
        if type(owner[key]) is not kind:  # bool is an int to isinstance
            self.fail(f"{key!r} of {where} is not {'an' if kind is int else 'a'} {kind.__name__}")
        return owner[key]

    def integer(self, owner: dict[str, Any], key: str, where: str) -> int:
        value = self.member(owner, key, int, where)
        if value < 0 or value >= 1 << 63:
            self.fail(f"{key!r} of {where} is out of range")
        return int(value)

    def requires(self, document: dict[str, Any], version: int) -> tuple[str, ...]:
        """The features that a file requires, if this version knows all of them: without, nothing else is sure."""
        if version == VERSION and "requires" not in document:
            return ()
        names = self.member(document, "requires", list, "the header")
        for name in names:
            if type(name) is not str or not FEATURE_NAME.match(name):
                self.fail(f"the feature name {str(name)[:80]!r} is not allowed")
        self.unique("feature", names)
        if unknown := next((name for name in names if name not in FEATURES), None):
            what = f"{self.path}: requires the feature {unknown!r}, which this edgeq does not know"
            raise UnsupportedError(f"{what}: update edgeq")
        return tuple(names)

    def named(self, entry: Any, kind: str, pattern: re.Pattern[str]) -> tuple[str, str]:
        if not isinstance(entry, dict):
            self.fail(f"an entry of {kind}s is not an object")
        name = self.member(entry, "name", str, f"one of the {kind}s")
        if not pattern.match(name):
            self.fail(f"the {kind} name {name[:80]!r} is not allowed")
        return name, f"{kind} {name!r}"

    def extent(self, entry: dict[str, Any], where: str, start: int, end: int) -> tuple[int, int, int]:
        """(offset, nbytes, crc32), inside the file and after the header."""
        offset, nbytes = self.integer(entry, "offset", where), self.integer(entry, "nbytes", where)
        crc = self.member(entry, "crc32", str, where)
        if not _CRC32.match(crc):
            self.fail(f"'crc32' of {where} is not 8 hexadecimal digits")
        if offset % ALIGNMENT:
            self.fail(f"{where} starts at {offset}, not a multiple of {ALIGNMENT}")
        if offset < start:
            self.fail(f"{where} overlaps the header")
        if offset + nbytes > end:
            self.fail(f"{where} lies outside the file (bytes {offset} to {offset + nbytes} of {end})")
        return offset, nbytes, int(crc, 16)

    def tensor(self, entry: Any, start: int, end: int) -> TensorInfo:
        name, where = self.named(entry, "tensor", TENSOR_NAME)
        kind = self.member(entry, "type", str, where)
        if kind not in BLOCK_TYPES:
            known = ", ".join(BLOCK_TYPES)
            raise UnsupportedError(f"{self.path}: {where} has the unknown type {kind[:40]!r}, known are {known}")
        dims = self.member(entry, "shape", list, where)
        if not 1 <= len(dims) <= 3 or any(type(n) is not int or not 0 < n < 1 << 31 for n in dims):
            self.fail(f"{where} does not have one to three positive dimensions below 2**31")
        shape = tuple(dims)
        try:
            expected = tensor_bytes(kind, shape)
        except UnsupportedError as e:
            self.fail(f"{where}: {e}")
        offset, nbytes, crc = self.extent(entry, where, start, end)
        if nbytes != expected:
            self.fail(f"{where} claims {nbytes} bytes, a {kind} tensor of shape {dims} has {expected}")
        return TensorInfo(name, shape, kind, offset, nbytes, crc, self.activation_scale(entry, kind, where))

    def activation_scale(self, entry: dict[str, Any], kind: str, where: str) -> float | None:
        if "activation_scale" not in entry:
            return None
        scale = entry["activation_scale"]
        if type(scale) not in (int, float):
            self.fail(f"'activation_scale' of {where} is not a number")
        if reason := activation_refusal(kind, scale):
            self.fail(f"{where}: {reason}")
        return float(scale)

    def asset(self, entry: Any, start: int, end: int) -> AssetInfo:
        name, where = self.named(entry, "asset", ASSET_NAME)
        return AssetInfo(name, *self.extent(entry, where, start, end))

    def unique(self, kind: str, names: Sequence[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                self.fail(f"{kind} {name!r} occurs twice")
            seen.add(name)

    def apart(self, entries: Sequence[TensorInfo | AssetInfo]) -> None:
        ordered = sorted((e for e in entries if e.nbytes), key=lambda e: e.offset)
        for before, after in pairwise(ordered):
            if before.offset + before.nbytes > after.offset:
                self.fail(f"{before.name!r} and {after.name!r} overlap")
