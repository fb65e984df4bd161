"""Kernel files: machine code that is mapped and run as it lies in the file. Imports neither Numba nor llvmlite.

A file holds one kernel (those that are compiled here) or all that the engine needs (those built ahead of time). Its
code needs no symbol from outside and no relocation, so that loading is to check a digest and to map pages, which all
processes share. `formats/kernels.md` gives every byte.
"""

import ctypes
import hashlib
import json
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from edgeq.errors import KernelError
from edgeq.system.json_input import parse_json
from edgeq.toolchain.owned import open_owned

MAGIC = bytes((0x89, 0x45, 0x51, 0x4B, 0x0D, 0x0A, 0x1A, 0x0A))
VERSION = 1
PREFIX = "<8sII32s"  # magic, version, bytes of the JSON header, SHA-256 of all bytes but these 32
PREFIX_BYTES = 48
_SEALED = 16  # bytes of the prefix before the digest
MAX_HEADER_BYTES = 1 << 20
# Code begins at a multiple of the largest page that Linux has on the architecture.
PAGE = {"x86_64": 4096, "aarch64": 65536}
_OTHER_PAGE = 65536


Code = TypeVar("Code", mmap.mmap, bytes)


@dataclass(frozen=True)
class Header:
    """What a kernel file says of itself.

    architecture  as `platform.machine()` names it
    cpu           whom it was compiled for, in LLVM's words
    needs         features without which it must not run, in LLVM's words
    isa           body of the kernels, a name of `simd/isa.py`
    sources       digest of the sources that it was compiled from
    kernels       name -> offset of its entry point from the start of the code
    offset        of the code from the start of the file
    nbytes        of the code
    """

    architecture: str
    cpu: str
    needs: tuple[str, ...]
    isa: str
    sources: str
    kernels: dict[str, int]
    offset: int
    nbytes: int


def supported() -> bool:
    """Whether this system can run kernel files: others load relocatable objects through llvmlite."""
    return sys.platform == "linux" and platform.machine() in PAGE


def render(
    architecture: str,
    cpu: str,
    needs: tuple[str, ...],
    isa: str,
    sources: str,
    kernels: dict[str, int],
    code: bytes,
) -> bytes:
    """A kernel file; the arguments are those of Header."""
    page = PAGE.get(architecture, _OTHER_PAGE)
    document: dict[str, Any] = {
        "architecture": architecture,
        "cpu": cpu,
        "needs": list(needs),
        "isa": isa,
        "sources": sources,
        "kernels": kernels,
        "nbytes": len(code),
    }
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    before = struct.pack(PREFIX[:-3], MAGIC, VERSION, len(text))
    rest = text + bytes(-(PREFIX_BYTES + len(text)) % page) + code
    return before + hashlib.sha256(before + rest).digest() + rest


def read_header(path: Path) -> Header:
    """The header of a kernel file, of which the digest is not checked yet. KernelError if it is none."""
    try:
        with open_owned(path) as file:
            prefix = file.read(PREFIX_BYTES)
            length = _header_bytes(path, prefix)
            return _parse(path, file.read(length), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise KernelError(f"{path}: cannot be read: {error.strerror}") from error


def load(path: Path) -> tuple[Header, int]:
    """Map a kernel file for execution: its header, and the address of its code. It stays mapped until the end.

    Raises KernelError for a file that is damaged, or that the system does not let run. Whether it fits this CPU and
    these sources is the caller's to check, from `read_header`.
    """
    header, code = _checked(path, _map)
    # Python's end must not unmap it either: workers are daemons, which may still be inside
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(code))
    return header, int(np.frombuffer(code, np.uint8).ctypes.data)


def read(path: Path) -> tuple[Header, bytes]:
    """The header and the code of a kernel file, for systems that cannot map it. KernelError if it is damaged."""
    return _checked(path, lambda file, header: file.read(header.nbytes))


def _checked(path: Path, get_code: Callable[[BinaryIO, Header], Code]) -> tuple[Header, Code]:
    try:
        with open_owned(path) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(PREFIX_BYTES)
            text = file.read(_header_bytes(path, prefix))
            header = _parse(path, text, size)
            between = file.read(header.offset - PREFIX_BYTES - len(text))
            code = get_code(file, header)
    except OSError as error:
        raise KernelError(f"{path}: cannot be loaded: {error.strerror}") from error
    digest = hashlib.sha256(prefix[:_SEALED] + text + between)
    digest.update(code)  # of what will run, not of what was read
    if digest.digest() != prefix[_SEALED:]:
        raise KernelError(f"{path}: is damaged, its checksum is wrong: build it again")
    return header, code


def _map(file: BinaryIO, header: Header) -> mmap.mmap:
    options = {"flags": mmap.MAP_PRIVATE, "prot": mmap.PROT_READ | mmap.PROT_EXEC}
    try:
        return mmap.mmap(file.fileno(), header.nbytes, offset=header.offset, **options)
    except OSError:  # the file system is mounted noexec: memory of the process's own may still be allowed
        copy = os.memfd_create("edgeq-kernels")
        try:
            os.write(copy, file.read(header.nbytes))
            return mmap.mmap(copy, header.nbytes, **options)
        finally:
            os.close(copy)


def _header_bytes(path: Path, prefix: bytes) -> int:
    if len(prefix) < PREFIX_BYTES or prefix[:8] != MAGIC:
        raise KernelError(f"{path}: is no library of kernels, or is cut short: build it again")
    _, version, length, _ = struct.unpack(PREFIX, prefix)
    if version != VERSION:
        raise KernelError(f"{path}: has format version {version}, this edgeq reads {VERSION}: build it again")
    if length > MAX_HEADER_BYTES:
        raise KernelError(f"{path}: is damaged, it claims a header of {length} bytes: build it again")
    return int(length)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _parse(path: Path, text: bytes, size: int) -> Header:
    try:
        document = parse_json(text)
        architecture, kernels = _text(document["architecture"]), document["kernels"]
        end = PREFIX_BYTES + len(text)
        header = Header(
            architecture,
            _text(document["cpu"]),
            tuple(map(_text, _list(document["needs"]))),
            _text(document["isa"]),
            _text(document["sources"]),
            {str(name): int(offset) for name, offset in kernels.items()},
            end + -end % PAGE.get(architecture, _OTHER_PAGE),
            int(document["nbytes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise KernelError(f"{path}: is damaged, its header makes no sense: build it again") from None
    inside = all(0 <= offset < header.nbytes for offset in header.kernels.values())
    if header.nbytes < 1 or not inside or size != header.offset + header.nbytes:
        raise KernelError(f"{path}: is damaged or cut short: build it again")
    return header
