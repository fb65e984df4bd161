"""Memory that begins or ends where nothing is mapped: a kernel that goes past that end of a buffer ends the process.

A plugin of pytest (`-p guard_memory`, with tests/ on the path): all arrays of NumPy's and all of edgeq's buffers then
lie in such memory, `--guard after` them or `before`. What is left of their pages at the other end is looked at, when
they are let go, for what was written there.
"""

import ctypes
import mmap
import os
import sys
from typing import Any

import numpy as np
import pytest
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

import edgeq.container.reader
import edgeq.graph.aligned
from edgeq.graph.aligned import round_up

ALIGNMENT = 64  # as kernels may expect of edgeq's buffers: what is left behind a shorter end lies in their last line
LARGEST = 1 << 26  # bytes: so large ones come as they always do
KEPT = 1 << 20  # bytes: maps of up to so many are used again, as others cost time
MOST = 20_000  # at once: each takes two or three of the maps that a process may have
CANARY = 0xA5
_HANDLER = 306  # where NumPy's table of functions for C has its allocator: PyDataMem_DefaultHandler

_libc = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_word, _size = ctypes.c_void_p, ctypes.c_size_t
_FORMS = (  # as NumPy calls them: context first
    ctypes.PYFUNCTYPE(_word, _word, _size),
    ctypes.PYFUNCTYPE(_word, _word, _size, _size),
    ctypes.PYFUNCTYPE(_word, _word, _word, _size),
    ctypes.PYFUNCTYPE(None, _word, _word, _size),
)


class Allocator(ctypes.Structure):
    """NumPy's `PyDataMem_Handler`."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", _word), ("calls", _word * 4))


class Guard:
    """Takes the place of NumPy's allocator, for all threads."""

    def __init__(self) -> None:
        self.before = False
        self.made = self.left_out = 0
        self._there: dict[int, tuple[int, int, int]] = {}  # address -> where its pages begin, their bytes, its
        self._spare: dict[int, list[int]] = {}  # bytes of pages -> where such begin, for the next ones
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = _word, [ctypes.py_object, ctypes.c_char_p]
        table = (_word * (_HANDLER + 1)).from_address(pointer(_multiarray_umath._ARRAY_API, None))
        handler = ctypes.cast(table[_HANDLER], ctypes.POINTER(ctypes.py_object))[0]
        self._own = Allocator.from_address(pointer(handler, b"mem_handler"))
        assert self._own.name == b"default_allocator" and self._own.version == 1
        self._context = self._own.context
        found = [form(address) for form, address in zip(_FORMS, self._own.calls, strict=True)]
        self._malloc, self._calloc, self._realloc, self._free = found
        calls = (self.malloc, self.calloc, self.realloc, self.free)
        self._calls = [form(call) for form, call in zip(_FORMS, calls, strict=True)]

    def install(self) -> None:
        self._own.calls[:] = [ctypes.cast(call, _word).value or 0 for call in self._calls]

    def _take(self, nbytes: int) -> int:
        """Where so many zero bytes are, or 0; as NumPy's own, they begin at a multiple of 16."""
        if not 0 < nbytes <= LARGEST or len(self._there) >= MOST:
            self.left_out += 1
            return 0
        size = round_up(nbytes, 16)
        room = round_up(size, mmap.PAGESIZE)
        spare = self._spare.get(room)
        first = spare.pop() if spare else self._map(room)
        found = first if self.before else first + room - size
        ctypes.memset(first, CANARY, room)
        ctypes.memset(found, 0, nbytes)
        self._there[found] = first, room, nbytes
        self.made += 1
        return found

    def _map(self, room: int) -> int:
        """So many bytes between two unmapped pages."""
        page, flags = mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        start = _libc.mmap(None, room + 2 * page, 3, flags, -1, 0)  # to be read and written
        if start == ctypes.c_void_p(-1).value:
            raise MemoryError
        for guard in (start, start + page + room):
            if _libc.mprotect(guard, page, 0):
                raise MemoryError
        return int(start) + page

    def look(self, found: int) -> None:
        """End the process if something was written beside a buffer."""
        first, room, nbytes = self._there[found]
        end = found + nbytes
        beside = ctypes.string_at(first, found - first), ctypes.string_at(end, first + room - end)
        if beside[0].strip(bytes([CANARY])) or beside[1].strip(bytes([CANARY])):
            os.write(2, f"something was written beside a buffer of {nbytes} bytes\n".encode())
            os.abort()

    def look_at_all(self) -> None:
        for found in list(self._there):
            self.look(found)

    def malloc(self, context: int, nbytes: int) -> int:
        return self._take(nbytes) or self._malloc(context, nbytes)

    def calloc(self, context: int, count: int, nbytes: int) -> int:
        return self._take(count * nbytes) or self._calloc(context, count, nbytes)

    def realloc(self, context: int, found: int | None, nbytes: int) -> int:
        if found not in self._there:
            return int(self._realloc(context, found, nbytes) or 0)
        other = self.malloc(context, nbytes)
        ctypes.memmove(other, found, min(nbytes, self._there[found][2]))
        self.free(context, found, 0)
        return other

    def free(self, context: int, found: int | None, nbytes: int) -> None:
        if found not in self._there:
            return self._free(context, found, nbytes)
        self.look(found)
        first, room, _ = self._there.pop(found)
        if room <= KEPT:
            self._spare.setdefault(room, []).append(first)
        else:
            _libc.munmap(first - mmap.PAGESIZE, room + 2 * mmap.PAGESIZE)


guard = Guard()


def guarded(nbytes: int) -> np.ndarray:
    """`nbytes` zero bytes that begin at a multiple of 64, less than that before an unmapped page or behind one."""
    return np.zeros(round_up(nbytes, ALIGNMENT), np.uint8)[:nbytes]


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guard", choices=("after", "before"), default="after", help="which end of buffers is guarded")


def pytest_configure(config: pytest.Config) -> None:
    edgeq.graph.aligned.aligned = guarded
    edgeq.container.reader.File.data = _guarded_data  # type: ignore[method-assign]
    guard.before = config.getoption("guard") == "before"
    guard.install()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    guard.look_at_all()
    side = "behind" if guard.before else "before"
    said = f"{guard.made} buffers right {side} an unmapped page, 0 faults; {guard.left_out} others"
    terminalreporter.write_line(said)


_code = 0


def pytest_sessionfinish(exitstatus: int) -> None:
    global _code
    _code = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """End at once: what Python lets go of at its end would call what it has let go of."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)
