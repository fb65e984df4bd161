"""Compiled kernels on disk, one file each, in a folder named by everything that compiled code depends on.

Numba's own cache looks at one source file only and would run stale code after an edit elsewhere; here a digest of all
the sources of a kernel's family, the CPU, its features and the versions of the compilers names the folder. Imports
neither Numba nor llvmlite.

What is compiled ahead of time for a CPU of cpus.py is kept as well, in a folder of that CPU: a build that was ended
goes on where it was.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from edgeq.errors import KernelError, OutputError, UsageError
from edgeq.simd.isa import TABLE, Isa
from edgeq.system import environment
from edgeq.system.output import make_folder, write_file
from edgeq.toolchain import image
from edgeq.toolchain.cpus import Cpu
from edgeq.toolchain.owned import refusal
from edgeq.toolchain.sources import digest, sources

UNUSED_DAYS = 30  # after which kernels are removed: those of other versions, of another CPU, of models that are gone
_DAY = 86400.0
OWN = 0o644  # what others may not write, whatever the user's mask
_FOLDER = re.compile(r"([0-9a-f]{16}|\.unused-.*)\Z")


def root() -> Path:
    """The folder of the folders of kernels that were compiled here."""
    return environment.cache_folder() / "kernels"


def folder(name: str, isa: Isa, cpu: Cpu | None = None) -> Path:
    """Where kernels of this one's family and body are kept: for this machine, or for a CPU of cpus.py.

    Raises KernelError if there is no such family.
    """
    target = None if cpu is None else (cpu.triple, cpu.llvm, cpu.features)
    return root() / digest(name, isa, target)


def path(name: str, isa: Isa, cpu: Cpu | None = None) -> Path:
    """Where the file of a kernel is kept."""
    family, _, variant = name.partition(":")
    stem = f"{family}-{variant}" if variant else family
    return folder(name, isa, cpu) / f"{stem}-{isa.name}.eqk"


def keep(name: str, isa: Isa, content: bytes, cpu: Cpu | None = None) -> bool:
    """Write a kernel's file atomically; False if it cannot be, which costs a compilation next time, as it does where
    others could have written it."""
    try:
        make_folder(folder(name, isa, cpu))
        write_file(path(name, isa, cpu), content, OWN)
    except (OSError, OutputError):
        return False
    return not refusal(path(name, isa, cpu))


def keep_object(name: str, cpu: Cpu, code: bytes) -> None:
    """Keep the object of a kernel that is compiled for `cpu`, as it will be linked with others."""
    needs = tuple(sorted(cpu.needs))
    made_from = sources([name], cpu.isa)
    content = image.render(cpu.architecture, cpu.name, needs, cpu.isa.name, made_from, {name: 0}, code)
    keep(name, cpu.isa, content, cpu)


def kept_object(name: str, cpu: Cpu) -> bytes | None:
    """What `keep_object` kept, or None: there is nothing, or it is damaged."""
    try:
        header, code = image.read(path(name, cpu.isa, cpu))
    except KernelError:
        return None
    return code if list(header.kernels) == [name] else None


def mark_used(names: Iterable[str], isa: Isa, cpu: Cpu | None = None) -> None:
    """Note once a day, in their times of change, that the folders of these kernels are in use: `prune` goes by that."""
    with contextlib.suppress(UsageError):  # there is no home for them
        for used in {folder(name, isa, cpu) for name in names}:
            with contextlib.suppress(OSError):  # there is none yet, or it is another user's
                if time.time() - used.stat().st_mtime > _DAY:
                    os.utime(used)


def count() -> int:
    """How many kernels are kept for this machine, for whatever body, of the sources as they are."""
    bodies, found = {isa.name: isa for isa in TABLE}, 0
    for file in root().glob("*/*.eqk"):
        family, body = file.stem.partition("-")[0], file.stem.rpartition("-")[2]
        with contextlib.suppress(KernelError, KeyError):  # of another version, which had other families or bodies
            found += file.parent.name == digest(family, bodies[body])
    return found


def prune() -> None:
    """Remove the folders that nobody has used for UNUSED_DAYS.

    A folder is renamed before it is emptied, so that no process finds half of one, and two processes that prune at
    once do not meet. Whoever has loaded kernels from it keeps them.
    """
    import shutil

    try:
        folders = [entry for entry in os.scandir(root()) if _FOLDER.match(entry.name)]
    except OSError:
        return
    for one in folders:
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - one.stat().st_mtime < UNUSED_DAYS * _DAY:
                continue
            unused = root() / f".unused-{os.getpid()}-{one.name.removeprefix('.unused-')}"
            os.rename(one.path, unused)
            shutil.rmtree(unused, ignore_errors=True)
