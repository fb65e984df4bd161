"""Another system than Linux, as far as this one can play it: run as a program, it is `edgeq` there.

What Windows or macOS do not have is taken away before edgeq is imported: calls that read and write at a place, that ask
for CPUs or for memory that can be executed, files without names, locks of files, /proc and /sys. Kernels then come as
objects through LLVM's loader. What remains is POSIX: paths, processes and signals stay as they are here.
"""

import concurrent.futures
import ctypes
import importlib
import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path

GONE = {
    os: (
        *("preadv", "pread", "pwrite", "pwritev", "posix_fadvise", "posix_fallocate", "memfd_create", "O_TMPFILE"),
        *("sched_getaffinity", "sched_setaffinity", "sendfile", "copy_file_range"),
    ),
    mmap: tuple(name for name in dir(mmap) if name.startswith(("MAP_", "PROT_", "MADV_"))),
}
MODULES = ("fcntl", "resource")
# They look at the system when they are imported: from the libraries, not from edgeq, which must look at it here.
EARLY = ("click", "jinja2", "llvmlite.binding", "ml_dtypes", "numba", "numpy", "psutil", "rich.progress", "tokenizers")


def leave(system: str) -> None:
    """Take Linux away."""
    assert not [name for name in sys.modules if name.partition(".")[0] == "edgeq"]
    for name in EARLY:
        importlib.import_module(name)
    for module, names in GONE.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    tempfile._O_TMPFILE_WORKS = False  # type: ignore[attr-defined]
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    read_text, is_dir, isdir = Path.read_text, Path.is_dir, os.path.isdir
    tell = ("/proc/", "/sys/")

    def text(path: Path, *arguments: str, **options: str) -> str:
        if str(path).startswith(tell):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read_text(path, *arguments, **options)

    Path.read_text = text  # type: ignore[method-assign, assignment]
    Path.is_dir = lambda path: not str(path).startswith(tell) and is_dir(path)  # type: ignore[method-assign]
    os.path.isdir = lambda path: not str(path).startswith(tell) and isdir(path)  # type: ignore[assignment]
    sys.platform = system


if __name__ == "__main__":
    assert concurrent.futures and ctypes and subprocess and tempfile  # imported before the system changes
    leave("darwin")
    from edgeq.__main__ import main

    sys.exit(main())
