"""How what layers keep of earlier tokens lies in memory: pages of as many positions as a block of attention.

Layers that see the same positions share their pages: in each one layer's part follows the other's. A sequence has a
table of the addresses of its pages; kernels find it by row.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from edgeq.graph.aligned import aligned, round_up
from edgeq.graph.heads import Heads
from edgeq.kernels.layout import ATTENTION_BLOCK, KV_BYTES, kv_scale_bytes

RECURRENT = 0  # the window of layers that see what came before only through a state, which replaces itself
REWIND = 1024  # tokens by which a sequence can always go back: an answer that a chat template writes differently


def page_places(context: int) -> int:
    """Positions of a page, where sequences have up to `context`: a multiple of 16, as that is."""
    return min(context, ATTENTION_BLOCK)


def most_pages(window: int | None, context: int, batch: int) -> int:
    """Pages that a sequence has at most: of all its positions, or of those that are seen and may be gone back to.

    The first of `batch` tokens sees window - 1 positions before it.
    """
    every = -(-context // ATTENTION_BLOCK)
    if window is None:
        return every
    if window == RECURRENT:
        written = -(-batch // ATTENTION_BLOCK) + 1  # they may begin within one
        return min(every, written + max((len(checkpoints(last)) for last in range(every)), default=0))
    kept = window - 1 + max(batch, REWIND)
    return min(every, -(-(kept - 1) // ATTENTION_BLOCK) + 1)  # they may begin within one


def checkpoints(last: int) -> list[int]:
    """The pages before page `last` whose states are kept: the two latest, and the fewer the further back, such that one
    can go back by any distance without computing much more than that again."""
    return [page for page in range(last) if last - 1 - page < 2 * ((page + 1) & -(page + 1))]


def first_kept(window: int, start: int, end: int) -> int:
    """The first position that is kept once those from `start` to `end` are computed: what they see, and what is seen by
    those that may be computed again."""
    return max(0, min(start, end - REWIND) + 1 - window)


class Kept(ABC):
    """What one layer keeps of each of the latest `window` positions, or of all: `position_bytes`, of a page `nbytes`.

    offset: where its part begins in a page; its group says
    alike:  layers of which this is equal have one place, as none reads it after the next one writes it
    """

    alike: Hashable | None = None

    def __init__(self, window: int | None, position_bytes: int, places: int) -> None:
        self.window, self.position_bytes = window, position_bytes
        self.nbytes, self.offset = self.page_bytes(places), 0

    def page_bytes(self, places: int) -> int:
        """What its part takes of a page of so many positions."""
        return self.position_bytes * places

    @abstractmethod
    def overflowed(self, part: np.ndarray) -> bool:
        """Whether something was kept that its elements cannot hold, in its part of a page."""

    @abstractmethod
    def blank(self, part: np.ndarray, first: int) -> None:
        """Zero what is kept of place `first` and those behind it, in its part of a page."""


class KeysAndValues(Kept):
    """Those of one attention layer, elements f16, f32 or q8_0, as kernels/cache_rows.py lays them out: keys first, and
    no values where keys begin with them."""

    def __init__(self, heads: Heads, places: int, kind: str) -> None:
        width, scales = heads.num_key_value_heads, kv_scale_bytes(kind, heads.head_dim)
        keys = width * (KV_BYTES[kind] * heads.head_dim + scales)
        values = 0 if heads.latent else width * (KV_BYTES[kind] * round_up(heads.head_dim, 16) + scales)
        super().__init__(heads.sliding_window, keys + values, places)
        self.key_bytes = keys * places
        if not heads.causal:  # a text is evaluated in one pass, layer by layer
            self.alike = replace(heads, sinks="", distances=""), kind
        self._heads, self._kind, self._places = heads, kind, places

    def overflowed(self, part: np.ndarray) -> bool:
        """Whether a key or value is past f16's range; of q8_0, a scale is. Where layers share the place, also whether
        it is no number: what an earlier layer could not hold comes to that."""
        if self._kind == "f32":
            return False
        keys, values = part[: self.key_bytes], part[self.key_bytes :]
        if self._kind == "q8_0":  # scales follow a key panel's codes, and a value head's
            width, head_dim = self._heads.num_key_value_heads, self._heads.head_dim
            keys = keys.reshape(width * self._places // 16, -1)[:, 16 * head_dim :]
            values = values.reshape(width, -1)[:, self._places * round_up(head_dim, 16) :]
        halves = (np.ascontiguousarray(each).view(np.float16) for each in (keys, values))
        wrong = np.isinf if self.alike is None else lambda x: ~np.isfinite(x)
        return any(bool(wrong(each).any()) for each in halves)

    def blank(self, part: np.ndarray, first: int) -> None:
        width, head_dim, element = self._heads.num_key_value_heads, self._heads.head_dim, KV_BYTES[self._kind]
        codes, rounded = 16 * head_dim * element, round_up(head_dim, 16)
        panels = part[: self.key_bytes].reshape(width * self._places // 16, -1).reshape(width, self._places // 16, -1)
        values = part[self.key_bytes :].reshape(width, -1)
        panels[:, first // 16 + 1 :] = 0
        for count, block in ((head_dim, slice(codes)), (-1, slice(codes, None))):  # codes; scales, where there are any
            size = element if count > 0 else 2
            last = panels[:, first // 16 : first // 16 + 1, block]
            last.reshape(width, -1, 16, size)[:, :, first % 16 :] = 0
        whole = self._places * rounded * element
        for begin, size in ((slice(whole), 16 * element), (slice(whole, None), 2)):
            here = values[:, begin]
            here.reshape(width, -1, self._places, size)[:, :, first:] = 0


class ConvRows(Kept):
    """The rows that a layer's short convolution of `taps` taps looks back on: f32 [place][width]."""

    def __init__(self, width: int, taps: int, places: int) -> None:
        super().__init__(taps, 4 * width, places)

    def overflowed(self, part: np.ndarray) -> bool:
        return False

    def blank(self, part: np.ndarray, first: int) -> None:
        part[first * self.position_bytes :] = 0


class RecurrentState(Kept):
    """A state of `nbytes` in which a layer keeps all that it knows of earlier positions.

    Each page has one: that after the latest of its positions which was computed. A page that is full is thereby a
    checkpoint, from which others go on.
    """

    def __init__(self, nbytes: int) -> None:
        self._state_bytes = nbytes
        super().__init__(RECURRENT, 0, 0)

    def page_bytes(self, places: int) -> int:
        return self._state_bytes

    def overflowed(self, part: np.ndarray) -> bool:
        return False

    def blank(self, part: np.ndarray, first: int) -> None:
        """Nothing: it is of no position."""


class PageGroup:
    """Layers whose parts lie in the same pages, of `nbytes` each.

    tables: int64 [rows], for each row of a pass the address of its sequence's table: int64 [pages], their addresses
    """

    def __init__(self, window: int | None, rows: int) -> None:
        self.window, self.nbytes = window, 0
        self.layers: list[Kept] = []
        self.tables = aligned(8 * rows).view(np.int64)

    def add(self, kept: Kept) -> None:
        """Another layer's part, behind those there are."""
        kept.offset = self.nbytes
        self.nbytes += kept.nbytes
        self.layers.append(kept)
