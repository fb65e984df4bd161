"""What layers keep in a state that replaces itself: it cannot be taken back, so earlier ones stay as checkpoints."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from edgeq.graph.pages import PageGroup, checkpoints
from edgeq.kernels.layout import ATTENTION_BLOCK
from edgeq.runtime.pool import Pool
from edgeq.runtime.states import OnPages


class Recurrent(OnPages):
    """Pages of a group of layers with recurrent states (graph/pages.py).

    The last page holds the states of position `_end`, each one before it those of the position where it is full.
    Kernels change the last one in place, and begin a further one with a copy. Forks share them as those of attention.
    """

    rewinds = False

    def __init__(self, group: PageGroup, pool: Pool, blocks: int) -> None:
        super().__init__(group, pool, blocks)
        self._end = 0

    def extend(self, start: int, end: int) -> None:
        """Make room for positions `start` to `end`, and give back checkpoints that lie too close to one another.
        MemoryLimitError if there is none; then the sequence can go on from where it is all the same."""
        first = start // ATTENTION_BLOCK
        for block in range(first, -(-end // ATTENTION_BLOCK)):
            if not self._writable(block):
                before = self._pages[block]
                self._take(block).data[:] = 0 if before is None else before.data
        self._own = min(self._own, first)
        self._drop(set(range(first)) - set(checkpoints(first)))

    def passing(self, start: int, end: int) -> int:
        """A pass begins to change the states of `start` to those of `end`; where one can go on if it is broken off."""
        self._end = end
        return self.reachable(start)

    def reachable(self, position: int) -> int:
        """`position`, if the last page has its states, or the latest position up to it whose states there are."""
        last = self._pages[(position - 1) // ATTENTION_BLOCK] if position else None
        if position == self._end and last is not None:
            return position
        full = min(position, self._end) // ATTENTION_BLOCK
        while full and self._pages[full - 1] is None:
            full -= 1
        return full * ATTENTION_BLOCK

    def trim(self, position: int) -> int:
        """Give back what is behind the latest position up to `position` at which it can go on; that position."""
        self._end = position = self.reachable(position)
        self._drop(set(range(-(-position // ATTENTION_BLOCK), len(self._pages))))
        return position

    def fork(self) -> "Recurrent":
        """One with the same pages."""
        other = Recurrent(self._group, self._pool, len(self._pages))
        self._share(other)
        other._end = self._end
        return other

    def overflowed(self) -> bool:
        """Never: states are f32."""
        return False

    def save(self, end: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Copies of the page of `end` and of the latest checkpoint before it, by their numbers."""
        last = (end - 1) // ATTENTION_BLOCK
        kept = [number for number in range(last) if self._pages[number] is not None][-1:]
        pages = {number: self._pages[number] for number in (*kept, last) if end}
        return {number: page.data.copy() for number, page in pages.items() if page is not None}

    def restore(self, end: int, numbers: Collection[int]) -> dict[int, npt.NDArray[np.uint8]]:
        """Have the pages of these numbers, those that there can be, for the caller to fill: they are those of `end`."""
        self._end = end
        return self._take_all(numbers)
