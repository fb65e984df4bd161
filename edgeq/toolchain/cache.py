"""Compiled kernels on disk, one file each, in a folder named by everything that compiled code depends on.

Numba's own cache looks at one source file only and would run stale code after an edit elsewhere; here a digest of every
kernel source, the CPU, its features and the versions of the compilers names the folder. Imports neither Numba nor
llvmlite.

What is compiled ahead of time for a CPU of cpus.py is kept as well, in a folder of that CPU: a build that was ended
goes on where it was.
"""

import contextlib
import os
import re
import time
from pathlib import Path

from edgeq import environment
from edgeq.errors import KernelError, OutputError, UsageError
from edgeq.output import write_file
from edgeq.simd.isa import Isa
from edgeq.toolchain import image
from edgeq.toolchain.cpus import Cpu
from edgeq.toolchain.sources import digest, sources

UNUSED_DAYS = 30  # after which kernels of other versions, or of another CPU, are removed
_DAY = 86400.0
_FOLDER = re.compile(r"([0-9a-f]{16}|\.unused-.*)\Z")


def folder(cpu: Cpu | None = None) -> Path:
    """Where the kernels of these sources, compiled here, are kept: for this machine, or for a CPU of cpus.py."""
    target = None if cpu is None else (cpu.triple, cpu.llvm, cpu.features)
    return environment.cache_folder() / "kernels" / digest(target)


def path(name: str, isa: Isa, cpu: Cpu | None = None) -> Path:
    """Where the file of a kernel is kept."""
    family, _, variant = name.partition(":")
    stem = f"{family}-{variant}" if variant else family
    return folder(cpu) / f"{stem}-{isa.name}.eqk"


def keep(name: str, isa: Isa, content: bytes, cpu: Cpu | None = None) -> bool:
    """Write a kernel's file atomically; False if it cannot be, which costs a compilation next time."""
    try:
        folder(cpu).mkdir(parents=True, exist_ok=True)
        write_file(path(name, isa, cpu), content)
    except (OSError, OutputError):
        return False
    return True


def keep_object(name: str, cpu: Cpu, code: bytes) -> None:
    """Keep the object of a kernel that is compiled for `cpu`, as it will be linked with others."""
    needs = tuple(sorted(cpu.needs))
    keep(name, cpu.isa, image.render(cpu.architecture, cpu.name, needs, cpu.isa.name, sources(), {name: 0}, code), cpu)


def kept_object(name: str, cpu: Cpu) -> bytes | None:
    """What `keep_object` kept, or None: there is nothing, or it is damaged."""
    try:
        header, code = image.read(path(name, cpu.isa, cpu))
    except KernelError:
        return None
    return code if list(header.kernels) == [name] else None


def mark_used(cpu: Cpu | None = None) -> None:
    """Note once a day, in its time of change, that the folder of these kernels is in use: `prune` goes by that."""
    with contextlib.suppress(OSError, UsageError):  # there is none yet, or no home for it; or it is another user's
        if time.time() - folder(cpu).stat().st_mtime > _DAY:
            os.utime(folder(cpu))


def prune() -> None:
    """Remove the folders of other digests that nobody has used for UNUSED_DAYS.

    A folder is renamed before it is emptied, so that no process finds half of one, and two processes that prune at
    once do not meet. Whoever has loaded kernels from it keeps them.
    """
    import shutil

    own = folder()
    try:
        others = [entry for entry in os.scandir(own.parent) if _FOLDER.match(entry.name) and entry.name != own.name]
    except OSError:
        return
    for other in others:
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - other.stat().st_mtime < UNUSED_DAYS * _DAY:
                continue
            unused = own.parent / f".unused-{os.getpid()}-{other.name.removeprefix('.unused-')}"
            os.rename(other.path, unused)
            shutil.rmtree(unused, ignore_errors=True)
