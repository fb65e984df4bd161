"""Files mapped into memory, which another program may cut short while they are used.

Whoever reads a page that its file no longer has, or that the disk cannot give, gets the signal SIGBUS, which ends the
process. Here it is survived: a handler puts a page of zeros there and notes the file as lost, whose `check` then
raises. What was computed meanwhile is worthless, so `check` comes before any of it is handed out.

The handler is a ctypes callback, Python that runs in the thread that reads. That is sound as such a fault comes at a
known place only, a load from a mapped file, and never within the interpreter's or the C library's own work: the
thread either runs a kernel without the interpreter's lock, or has the lock and copies numbers.
"""

import ctypes
import functools
import mmap
import os
import signal
import sys
import weakref
from typing import Any, Self

from edgeq.errors import FormatError

_POSIX = sys.platform == "darwin" or (sys.platform == "linux" and not hasattr(sys, "getandroidapilevel"))
_SUPPORTED = _POSIX and sys.maxsize > 1 << 32 and hasattr(mmap, "PROT_READ")

if sys.platform == "darwin":
    _SA_SIGINFO, _FIXED, _ADDRESS = 0x40, 0x10 | 0x1000, 24
    _MASK: Any = ctypes.c_uint32
else:  # glibc and musl on 64-bit CPUs
    _SA_SIGINFO, _FIXED, _ADDRESS = 4, 0x10 | 0x20, 16
    _MASK = ctypes.c_uint64 * 16
_CODE = 8  # where siginfo_t says whether the CPU found a fault or a process sent the signal


class _Action(ctypes.Structure):
    """`struct sigaction`; macOS has no last field, and does not look at it."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", _MASK),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_places: dict[int, tuple[int, "weakref.ref[FileMap]"]] = {}  # of the maps there are: first address -> end, map
_previous = _Action()


class FileMap(mmap.mmap):
    """All of an open regular file, read-only. Raises ValueError for an empty one, OSError where it cannot be mapped."""

    path: str
    lost: bool

    def __new__(cls, fd: int, path: str | os.PathLike[str]) -> Self:
        """`path` is for messages."""
        self = super().__new__(cls, fd, 0, access=mmap.ACCESS_READ)
        self.path, self.lost = os.fspath(path), False
        if _SUPPORTED:
            import numpy as np

            start: int = np.frombuffer(self, np.uint8).ctypes.data
            end = start + -(-len(self) // mmap.PAGESIZE) * mmap.PAGESIZE
            weakref.finalize(self, _places.pop, start, None).atexit = False
            _places[start] = end, weakref.ref(self)
            _install()
        return self

    @property
    def cut(self) -> bool:
        """Whether the file became shorter than it was, or a part of it could not be read."""
        self.lost = self.lost or (not self.closed and self.size() < len(self))
        return self.lost

    def check(self) -> None:
        """FormatError if the file is `cut`."""
        if self.cut:
            raise FormatError(
                f"{self.path}: became shorter while it was in use, or the disk fails: "
                "copy or convert the file again and load it anew"
            )


def lost() -> set[FileMap]:
    """The files mapped now that have become shorter."""
    there = [found for _, one in list(_places.values()) if (found := one()) is not None]
    return {found for found in there if found.cut}


def _handle(number: int, info: int, context: int) -> None:
    """SIGBUS came. Where a mapped file has the address, all from there on becomes zeros: what lies behind the end of a
    file that was cut would fault as well. Elsewhere the handler that was there before has its turn: the fault comes
    again as soon as this returns."""
    address = ctypes.c_void_p.from_address(info + _ADDRESS).value or 0
    sent = ctypes.c_int.from_address(info + _CODE).value <= 0
    for start, (end, one) in [] if sent else list(_places.items()):
        if start <= address < end:
            page = address // mmap.PAGESIZE * mmap.PAGESIZE
            found = one()
            if found is not None and _libc().mmap(page, end - page, mmap.PROT_READ, _FIXED_PRIVATE, -1, 0) == page:
                found.lost = True
                return
    _libc().sigaction(signal.SIGBUS, ctypes.byref(_previous), None)
    if sent:
        signal.raise_signal(signal.SIGBUS)


_FIXED_PRIVATE = _FIXED | getattr(mmap, "MAP_PRIVATE", 0)
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_handle)


@functools.cache
def _libc() -> Any:
    libc = ctypes.PyDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    return libc


def _install() -> None:
    """Put the handler before the one that is there, unless it is there already."""
    current, own = _Action(), ctypes.cast(_HANDLER, ctypes.c_void_p).value
    libc = _libc()
    libc.sigaction(signal.SIGBUS, None, ctypes.byref(current))
    if current.handler != own:
        # Not on the signal stack that faulthandler sets up, which is too small for Python
        action = _Action(handler=own, flags=_SA_SIGINFO)
        libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_previous))
