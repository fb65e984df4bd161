"""Memory that ends where nothing is mapped: a kernel that reads or writes past the end of a buffer ends the process.

A plugin of pytest (`-p guard_memory`, with tests/ on the path): all tests that call kernels then do so on such memory.
"""

import ctypes
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

import edgeq.container.reader
import edgeq.graph.aligned

_libc = ctypes.CDLL(None)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
ALIGNMENT = 64  # as kernels may expect of some buffers: what is left behind a shorter end lies in their last line
LARGEST = 1 << 26  # bytes: so large ones come as they always do

_zeros, _empty, _full = np.zeros, np.empty, np.full
made = 0


def guarded(nbytes: int, alignment: int = ALIGNMENT) -> np.ndarray:
    """`nbytes` zero bytes that begin at a multiple of `alignment`, and end less than that before an unmapped page."""
    global made
    made += 1
    size = -(-nbytes // alignment) * alignment
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    whole = np.frombuffer(memory, np.uint8)
    end = pages * mmap.PAGESIZE
    if _libc.mprotect(whole.ctypes.data + end, mmap.PAGESIZE, 0):  # PROT_NONE
        raise OSError("mprotect failed")
    return whole[end - size : end - size + nbytes]


def _like(real: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """NumPy's function, whose array lies in such memory; as NumPy's do, it begins at a multiple of 16."""

    def make(*args: Any, **options: Any) -> np.ndarray:
        found = real(*args, **options)
        if found.dtype.hasobject or not 0 < found.nbytes <= LARGEST or not found.flags.c_contiguous:
            return found
        own = guarded(found.nbytes, 16).view(found.dtype).reshape(found.shape)
        own[...] = found
        return own

    return make


_data = edgeq.container.reader.File.data


def _guarded_data(self: Any, name: str) -> np.ndarray:
    """A tensor as a copy of its own; the same one each time, as code may compare addresses."""
    copies = self.__dict__.setdefault("_guarded", {})
    if name not in copies:
        found = _data(self, name)
        copies[name] = guarded(found.nbytes)
        copies[name][:] = found
        copies[name].flags.writeable = False
    return copies[name]


def pytest_configure() -> None:
    edgeq.graph.aligned.aligned = guarded
    edgeq.container.reader.File.data = _guarded_data  # type: ignore[method-assign]
    for name in ("zeros", "empty", "full", "zeros_like", "empty_like", "full_like", "ascontiguousarray"):
        setattr(np, name, _like(getattr(np, name)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{made} buffers that end at an unmapped page")
