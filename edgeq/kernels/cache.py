"""Compiled kernels on disk, one file each, in a folder named by everything that compiled code depends on.

Numba's own cache looks at one source file only and would run stale code after an edit elsewhere; here a digest of every
kernel source, the CPU, its features and the versions of the compilers names the folder.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding as llvm

from edgeq import environment
from edgeq.simd import isa as isa_table

UNUSED_DAYS = 30  # after which kernels of other versions, or of another CPU, are removed
_DAY = 86400.0
_PACKAGE = Path(__file__).resolve().parent.parent
_SOURCES = ("simd", "kernels", "blocks")
_FOLDER = re.compile(r"([0-9a-f]{16}|\.unused-.*)\Z")


@functools.cache
def digest() -> str:
    """What compiled code depends on, as 16 hex digits."""
    state = hashlib.sha256()
    for folder in _SOURCES:
        for source in sorted((_PACKAGE / folder).glob("*.py")):
            state.update(f"{folder}/{source.name}\0".encode() + source.read_bytes())
    features = ",".join(sorted(name for name, present in isa_table.host_features().items() if present))
    cpu = (platform.machine(), llvm.get_host_cpu_name(), features)
    state.update(repr((cpu, sys.version_info[:2], version("numba"), version("llvmlite"))).encode())
    return state.hexdigest()[:16]


def path(name: str, isa: isa_table.Isa) -> Path:
    """Where the object of a kernel is kept."""
    family, _, variant = name.partition(":")
    stem = f"{family}-{variant}" if variant else family
    return environment.cache_folder() / "kernels" / digest() / f"{stem}-{isa.name}.o"


def _seal(name: str, isa: isa_table.Isa, code: bytes) -> bytes:
    """What tells a whole object of this kernel from a damaged one, or from another's."""
    return hashlib.sha256(f"{name} {isa.name}\0".encode() + code).digest()


def read(name: str, isa: isa_table.Isa) -> bytes | None:
    """The object of a kernel; None if there is none, or none that is whole: it would crash the process."""
    try:
        content = path(name, isa).read_bytes()
    except OSError:
        return None
    seal, code = content[:32], content[32:]
    return code if seal == _seal(name, isa, code) else None


def keep(name: str, isa: isa_table.Isa, code: bytes) -> None:
    """Write atomically. A cache that cannot be written costs a compilation next time, not this run."""
    target, temporary = path(name, isa), None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(_seal(name, isa, code) + code)
        os.replace(temporary, target)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def mark_used() -> None:
    """Note once a day, in its time of change, that the folder of these kernels is in use: `prune` goes by that."""
    folder = environment.cache_folder() / "kernels" / digest()
    with contextlib.suppress(OSError):  # there is none yet, or it is another user's
        if time.time() - folder.stat().st_mtime > _DAY:
            os.utime(folder)


def prune() -> None:
    """Remove the folders of other digests that nobody has used for UNUSED_DAYS.

    A folder is renamed before it is emptied, so that no process finds half of one, and two processes that prune at
    once do not meet. Whoever has loaded kernels from it keeps them.
    """
    base, own = environment.cache_folder() / "kernels", digest()
    try:
        folders = [entry for entry in os.scandir(base) if _FOLDER.match(entry.name) and entry.name != own]
    except OSError:
        return
    for folder in folders:
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - folder.stat().st_mtime < UNUSED_DAYS * _DAY:
                continue
            unused = base / f".unused-{os.getpid()}-{folder.name.removeprefix('.unused-')}"
            os.rename(folder.path, unused)
            shutil.rmtree(unused, ignore_errors=True)
