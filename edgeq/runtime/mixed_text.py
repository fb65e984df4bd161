"""Rows that stand in a text in place of tokens, as images do: what tells them apart, and where they lie.

In a text's keys a token is its id, and a given row a number below 0 that no other row has: texts are compared by their
keys, so that what was evaluated of one image is never taken for another.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

MOST_ROWS = 1 << 20  # of a block

F32 = npt.NDArray[np.float32]


def key_of(block: int, row: int) -> int:
    """The key of a row of a block, whose number is 0 or more."""
    return -1 - block * MOST_ROWS - row


def around(keys: Sequence[int], at: int) -> tuple[int, int]:
    """The rows of a block that follow one another and lie on both sides of the place `at` in a text: where they begin,
    and where they end. `at` twice where it is between two such, or beside tokens."""
    first, end = at, at
    if 0 < at < len(keys) and _goes_on(keys, at):
        while first > 0 and _goes_on(keys, first):
            first -= 1
        while end < len(keys) and _goes_on(keys, end):
            end += 1
    return first, end


def _goes_on(keys: Sequence[int], at: int) -> bool:
    return keys[at] < 0 and keys[at] == keys[at - 1] - 1


def ends(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where those that follow one another end that each row of a block is among; of tokens the place behind each."""
    goes_on = (keys[1:] < 0) & (keys[1:] == keys[:-1] - 1)
    last = np.append(np.flatnonzero(~goes_on), len(keys) - 1)
    found: npt.NDArray[np.int64] = 1 + np.repeat(last, np.diff(last, prepend=-1))
    return found


class Given:
    """Blocks of rows, f32 [rows, width], by their numbers; they stay where they are in memory."""

    def __init__(self, blocks: Mapping[int, F32]) -> None:
        self._blocks = {number: np.ascontiguousarray(rows, np.float32) for number, rows in blocks.items()}

    def addresses(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the row of each key lies; 0 for a token. KeyError for a row that is not of these blocks."""
        found = np.zeros(len(keys), np.int64)
        (at,) = np.nonzero(keys < 0)
        numbers, rows = np.divmod(-1 - keys[at], MOST_ROWS)
        for number in np.unique(numbers):
            block, own = self._blocks[int(number)], numbers == number
            if rows[own].max() >= len(block):
                raise KeyError(int(number))
            found[at[own]] = int(block.ctypes.data) + rows[own] * block.strides[0]
        return found


class Mixed:
    """A text of tokens and rows.

    tokens: ids, of rows that of a token which stands for such
    keys: what tells texts apart, see above
    whole: rows of an image at most, where these must be evaluated at once; 0 otherwise
    """

    def __init__(self, tokens: Sequence[int], keys: Sequence[int], given: Given, whole: int = 0) -> None:
        self.tokens, self.keys, self.given, self.whole = list(tokens), list(keys), given, whole
