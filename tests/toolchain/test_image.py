"""Kernel files: what is written is read back, and what is damaged is refused before it runs."""

import ctypes
import errno
import hashlib
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.errors import KernelError
from edgeq.toolchain import image

CODE = bytes(range(256)) * 40
KERNELS = {"norm": 0, "rope:f16": 512}


def content(architecture: str = "x86_64", **changes: object) -> bytes:
    values = {"cpu": "x86-64-v3", "needs": ("avx2", "fma"), "isa": "avx2", "sources": "00112233", "kernels": KERNELS}
    return image.render(architecture, **{**values, "code": CODE, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "one.eqk"
    target.write_bytes(content())
    return target


def resealed(data: bytes) -> bytes:
    """With a checksum that is right."""
    return data[:16] + hashlib.sha256(data[:16] + data[48:]).digest() + data[48:]


@pytest.mark.parametrize(("architecture", "page"), [("x86_64", 4096), ("aarch64", 65536), ("riscv64", 65536)])
def test_bytes(architecture: str, page: int):
    """The layout of formats/kernels.md, from the bytes."""
    data = content(architecture)
    assert data[:8] == bytes.fromhex("89 45 51 4b 0d 0a 1a 0a")
    version, length = struct.unpack_from("<II", data, 8)
    assert version == 1 and data[48 : 49 + length].startswith(b'{"architecture":"')
    assert data[16:48] == hashlib.sha256(data[:16] + data[48:]).digest()
    assert len(data) == page + len(CODE) and data[page:] == CODE
    assert not any(data[48 + length : page])


def test_read_back(path: Path):
    header, code = image.read(path)
    assert code == CODE and header == image.read_header(path)
    assert (header.architecture, header.cpu, header.isa, header.sources) == ("x86_64", "x86-64-v3", "avx2", "00112233")
    assert header.needs == ("avx2", "fma") and header.kernels == KERNELS
    assert (header.offset, header.nbytes) == (4096, len(CODE))


@pytest.mark.parametrize(
    "changes",
    [{"isa": []}, {"cpu": {}}, {"needs": (5,)}, {"sources": 7}, {"kernels": {"norm": float("inf")}}, {"kernels": [1]}],
)
def test_a_header_of_other_types_is_refused(path: Path, changes: dict[str, object]):
    path.write_bytes(content(**changes))
    with pytest.raises(KernelError, match="its header makes no sense: build it again"):
        image.read_header(path)


@pytest.mark.parametrize("place", [12, 20, 60, 2000, 4096, 4096 + len(CODE) - 1])
def test_any_flipped_byte_is_found(path: Path, place: int):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(KernelError, match=r"one\.eqk: (is damaged|is no library)"):
        image.read(path)


@pytest.mark.parametrize("length", [0, 7, 47, 100, 4095, 4096, 4096 + len(CODE) - 1])
def test_any_cut_is_found(path: Path, length: int):
    os.truncate(path, length)
    with pytest.raises(KernelError, match=r"one\.eqk: (is damaged|is no library).* build it again"):
        image.read(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF" + bytes(100), "is no library of kernels"),
        (resealed(content()[:8] + struct.pack("<I", 2) + content()[12:]), "has format version 2, this edgeq reads 1"),
        (resealed(content()[:12] + struct.pack("<I", 1 << 30) + content()[16:]), "claims a header of 1073741824 bytes"),
        (resealed(content().replace(b'"nbytes":', b'"nbytez":')), "its header makes no sense"),
        (resealed(content().replace(b'"architecture":"', b'"architecture":[')), "its header makes no sense"),
        (content(kernels={"norm": len(CODE)}), "is damaged or cut short"),
        (content(kernels={"norm": -1}), "is damaged or cut short"),
        (content(code=b""), "is damaged or cut short"),
        (content() + b"x", "is damaged or cut short"),
    ],
    ids=range(9),
)
def test_what_makes_no_sense_is_refused(path: Path, data: bytes, message: str):
    path.write_bytes(data)
    for use in (image.read_header, image.read):
        with pytest.raises(KernelError, match=message):
            use(path)


def test_no_such_file(tmp_path: Path):
    with pytest.raises(KernelError, match=r"none\.eqk: cannot be read: No such file"):
        image.read_header(tmp_path / "none.eqk")


@pytest.mark.skipif(not image.supported(), reason="this system cannot run kernel files")
def test_where_files_must_not_be_executed(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file system mounted noexec: the code runs from memory."""
    real, refused = mmap.mmap, []

    def refuse_first(*args: object, **options: object) -> mmap.mmap:
        if not refused:
            refused.append(args)
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(*args, **options)

    monkeypatch.setattr(image.mmap, "mmap", refuse_first)
    _, address = image.load(path)
    assert refused and address % mmap.PAGESIZE == 0
    assert ctypes.string_at(address, len(CODE)) == CODE


@pytest.mark.skipif(not image.supported(), reason="this system cannot run kernel files")
def test_code_outlives_python(path: Path):
    """As Python ends it takes modules apart, while a worker may still be on its way out of a kernel."""
    program = """
import ctypes, gc, pathlib, sys
from edgeq.toolchain import image
_, address = image.load(pathlib.Path(sys.argv[1]))
vars(image).clear()
gc.collect()
sys.stdout.buffer.write(ctypes.string_at(address, int(sys.argv[2])))
"""
    command = [sys.executable, "-c", program, str(path), str(len(CODE))]
    assert subprocess.run(command, capture_output=True, check=True).stdout == CODE


@pytest.mark.skipif(not image.supported(), reason="this system cannot run kernel files")
def test_where_nothing_may_be_executed(path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **options: object) -> mmap.mmap:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(image.mmap, "mmap", refuse)
    with pytest.raises(KernelError, match=r"one\.eqk: cannot be loaded: Permission denied"):
        image.load(path)
