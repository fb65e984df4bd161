"""Memory for pages (graph/pages.py), within a budget."""

import mmap
import threading

import numpy as np

from edgeq.errors import MemoryLimitError

SPARE = 64 << 20  # bytes of dropped pages that are kept for the next ones: the system takes its time for new ones
# A map of the process's own where the system tells these apart: a shared one would be shared with forked children
_OWN = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class _Taken:
    """A page's memory until nobody refers to it: then the pool has it back.

    An array alone refers to it, which the garbage collector does not look into. That finalizes all of a circle before
    anything in it is gone: a page that another finalizer brings back, as that of an unfinished answer does, would be
    in use and the pool's.
    """

    def __init__(self, pool: "Pool", data: np.ndarray) -> None:
        self._pool, self._data, self.__array_interface__ = pool, data, data.__array_interface__
        self._address = int(data.ctypes.data)  # taken now: NumPy imports for it, which it cannot when Python ends

    def __del__(self) -> None:
        self._pool.give_back(self._address, self._data)


class Page:
    """u8 `data` at `address`, which may hold anything. The pool has it back once nobody refers to the page."""

    def __init__(self, pool: "Pool", data: np.ndarray) -> None:
        self.data, self.address = np.asarray(_Taken(pool, data)), int(data.ctypes.data)


class Pool:
    """Gives pages as long as those that are in use take at most `budget` bytes together.

    It counts who is there, not who says that it leaves: what is dropped, even by an interrupt, is not lost.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._used: dict[int, int] = {}  # bytes of the pages in use, by address
        self._spare: list[np.ndarray] = []
        self._taking = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes of the pages in use."""
        return sum(list(self._used.values()))  # a list first: any thread may drop a page now

    @property
    def spare(self) -> int:
        """Bytes that are kept for other pages."""
        return sum(data.nbytes for data in list(self._spare))

    def take(self, nbytes: int) -> Page:
        """A page. Raises MemoryLimitError if that would exceed the budget."""
        with self._taking:
            used = self.used
            if used + nbytes > self.budget:
                raise MemoryLimitError(
                    f"the {self.budget} bytes for keys and values are in use: end other texts, or make room for more"
                )
            found = next((i for i, data in enumerate(self._spare) if data.nbytes == nbytes), None)
            if found is None and used + self.spare + nbytes > self.budget:
                self._spare.clear()
            data = np.frombuffer(mmap.mmap(-1, nbytes, **_OWN), np.uint8) if found is None else self._spare.pop(found)
            page = Page(self, data)
            self._used[page.address] = nbytes
            return page

    def give_back(self, address: int, data: np.ndarray) -> None:
        """Keep a page's memory for the next one, or let the system have it. Called at any moment: it must not wait."""
        self._used.pop(address, None)
        if (len(self._spare) + 1) * data.nbytes <= SPARE:
            self._spare.append(data)
