"""What a sequence keeps of its tokens, for layers that look back."""

import sys
from collections.abc import Collection
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from edgeq.graph.aligned import aligned
from edgeq.graph.pages import PageGroup, first_kept
from edgeq.kernels.layout import ATTENTION_BLOCK
from edgeq.runtime.pool import Page, Pool

_one = [object()]
_ALONE = sys.getrefcount(_one[0])  # of what is in one list, and nowhere else


class State(Protocol):
    """What layers keep of the positions of one sequence. One that keeps less than all of them knows where it can go
    back to."""

    address: int  # where kernels find it
    rewinds: bool  # whether the latest positions can be forgotten one by one

    @property
    def held(self) -> dict[int, int]:
        """Bytes of each piece of memory that it has, shared with others or not, by address."""

    def extend(self, start: int, end: int) -> None:
        """Make room for positions from `start`, which are to be computed next, to `end`. MemoryLimitError if there is
        none; then nothing changed."""

    def passing(self, start: int, end: int) -> int:
        """A pass begins to change what it keeps, of `start`, to what it keeps of `end`. Where it can go on from if the
        pass is broken off, at `start` or before: see Sequence.passing."""

    def reachable(self, position: int) -> int:
        """The latest position up to `position` at which it could go on."""

    def trim(self, position: int) -> int:
        """Forget what is from the latest position on at which it can go on up to `position`; that position."""

    def fork(self) -> Self:
        """One that goes on by itself."""

    def overflowed(self) -> bool:
        """Whether something was kept that its elements cannot hold."""

    def save(self, end: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Copies of its pieces by number, with nothing of positions from `end` on."""

    def restore(self, end: int, numbers: Collection[int]) -> dict[int, npt.NDArray[np.uint8]]:
        """Have, while it is empty, the pieces of these numbers, those that there can be, of a text that ends at `end`:
        by number, for the caller to fill. MemoryLimitError."""


class OnPages:
    """Pages by number, some of which there are, and the table that kernels find them by. Forks share them; a state's
    own, which it may write to, are those from number `_own` on, and those that nobody else has any more."""

    def __init__(self, group: PageGroup, pool: Pool, blocks: int) -> None:
        self._group, self._pool = group, pool
        self._pages: list[Page | None] = [None] * blocks
        self._table = aligned(8 * blocks).view(np.int64)
        self._own = 0
        self.address = int(self._table.ctypes.data)

    @property
    def held(self) -> dict[int, int]:
        """Bytes of each, shared with others or not, by address."""
        return {page.address: page.data.nbytes for page in self._pages if page is not None}

    def _take(self, number: int) -> Page:
        """A new page in the place of this one. MemoryLimitError."""
        page = self._pool.take(self._group.nbytes)
        self._table[number], self._pages[number] = page.address, page
        return page

    def _writable(self, number: int) -> bool:
        """Whether there is this page, and no other state has it. Those that once did may be gone, and what they shared
        may be all that the budget has room for."""
        if self._pages[number] is None:
            return False
        return number >= self._own or sys.getrefcount(self._pages[number]) == _ALONE

    def _share(self, other: "OnPages") -> None:
        """Have the same pages in `other`: from now on both copy those that they write to."""
        self._own = other._own = len(self._pages)
        other._pages[:], other._table[:] = self._pages, self._table

    def _take_all(self, numbers: Collection[int]) -> dict[int, npt.NDArray[np.uint8]]:
        """New pages in the places of these numbers, those that there can be; their bytes. MemoryLimitError."""
        return {number: self._take(number).data for number in numbers if number in range(len(self._pages))}

    def _drop(self, blocks: Collection[int]) -> None:
        for block in blocks:
            self._table[block], self._pages[block] = 0, None


class Pages(OnPages):
    """Pages of a group of layers: of all positions, or, where these see a window, of the latest.

    There are none before number `_first`.
    """

    rewinds = True

    def __init__(self, group: PageGroup, pool: Pool, blocks: int) -> None:
        super().__init__(group, pool, blocks)
        self._first = 0

    def extend(self, start: int, end: int) -> None:
        """Make room for positions `start` to `end`, and give back pages that nobody will see. MemoryLimitError if there
        is none; then the sequence can go on from where it is all the same."""
        if self._group.window is not None:
            first = first_kept(self._group.window, start, end) // ATTENTION_BLOCK
            self._drop(range(self._first, first))
            self._first = max(self._first, first)
        for block in range(start // ATTENTION_BLOCK, -(-end // ATTENTION_BLOCK)):
            if not self._writable(block):
                before = self._pages[block]
                page = self._take(block)
                if before is not None:
                    page.data[:] = before.data
        self._own = min(self._own, start // ATTENTION_BLOCK)

    def passing(self, start: int, end: int) -> int:
        """`start`: what lies behind it is written again."""
        return start

    def reachable(self, position: int) -> int:
        """`position`, or 0 if pages that it sees are gone."""
        window = self._group.window
        first = 0 if window is None else max(0, position + 1 - window)
        held = all(page is not None for page in self._pages[first // ATTENTION_BLOCK : -(-position // ATTENTION_BLOCK)])
        return position if held else 0

    def trim(self, position: int) -> int:
        """Give back what is behind `position`, or behind 0 if pages that it sees are gone."""
        position = self.reachable(position)
        self._first = min(self._first, position // ATTENTION_BLOCK)
        self._drop(range(-(-position // ATTENTION_BLOCK), len(self._pages)))
        return position

    def fork(self) -> "Pages":
        """One with the same pages."""
        other = Pages(self._group, self._pool, len(self._pages))
        self._share(other)
        other._first = self._first
        return other

    def overflowed(self) -> bool:
        """Whether a key or value is beyond the range of the cache's elements."""
        return any(
            layer.overflowed(page.data[layer.offset :][: layer.nbytes])
            for page in self._pages
            if page is not None
            for layer in self._group.layers
        )

    def save(self, end: int) -> dict[int, npt.NDArray[np.uint8]]:
        """Copies of them by number, zero from position `end` on."""
        last, pages = -(-end // ATTENTION_BLOCK), self._pages
        saved = {number: page.data.copy() for number, page in enumerate(pages[:last]) if page is not None}
        if end % ATTENTION_BLOCK and last - 1 in saved:
            for layer in self._group.layers:
                layer.blank(saved[last - 1][layer.offset :][: layer.nbytes], end % ATTENTION_BLOCK)
        return saved

    def restore(self, end: int, numbers: Collection[int]) -> dict[int, npt.NDArray[np.uint8]]:
        """Have the pages of these numbers, those that there can be, for the caller to fill."""
        self._first = min(numbers, default=0)
        return self._take_all(numbers)
