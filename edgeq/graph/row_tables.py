"""What kernels read of the rows of a pass. Only a few know more of them than how many there are: rope, attention,
learned positions, short convolutions, and what picks the rows whose logits are asked for."""

import numpy as np

from edgeq.graph.aligned import aligned
from edgeq.kernels.layout import RUN_WORDS

TOKENS, OUTPUTS, RUNS = range(3)  # words of RowTables.counts


class RowTables:
    """For passes of up to `rows` rows and `outputs` rows of logits; int64, written before each pass.

    counts: rows, rows of logits, runs
    tokens: an id per row, where the graph looks up embeddings
    positions: one per row
    outputs: the numbers of the rows whose logits are asked for
    types: one per row, where the graph looks them up
    given: of each row that a caller gives in place of a token its address, 0 of others, where the graph takes such
    reach: of each row the position behind the last that it sees, where the graph asks for that
    places: of each row its column and its row in a grid, [2, rows], where the graph asks for that; `most_places` is
        how many columns and rows there may be
    runs: RUN_WORDS for each, see kernels/layout.py
    """

    def __init__(self, rows: int, outputs: int) -> None:
        self.counts = _words(4)
        self.tokens, self.positions, self.outputs = _words(rows), _words(rows), _words(outputs)
        self.runs = _words(rows * RUN_WORDS).reshape(rows, RUN_WORDS)
        self.types: np.ndarray | None = None
        self.given: np.ndarray | None = None
        self.reach: np.ndarray | None = None
        self.places: np.ndarray | None = None
        self.most_places = rows

    def with_types(self) -> np.ndarray:
        """`types`, which are looked up from now on."""
        if self.types is None:
            self.types = _words(len(self.tokens))
        return self.types

    def with_given(self) -> np.ndarray:
        """`given`, which are copied from now on."""
        if self.given is None:
            self.given = _words(len(self.tokens))
        return self.given

    def with_reach(self) -> np.ndarray:
        """`reach`, which attention reads from now on."""
        if self.reach is None:
            self.reach = _words(len(self.tokens))
        return self.reach

    def with_places(self, most: int) -> np.ndarray:
        """`places`, which are looked up from now on among so many."""
        if self.places is None:
            self.places = _words(2 * len(self.tokens)).reshape(2, -1)
        self.most_places = min(self.most_places, most)
        return self.places

    def count(self, word: int) -> int:
        """The address of a word of `counts`."""
        return int(self.counts.ctypes.data) + 8 * word


def _words(count: int) -> np.ndarray:
    return aligned(8 * count).view(np.int64)
