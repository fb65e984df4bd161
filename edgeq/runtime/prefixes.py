"""Texts that were evaluated: what a new one has in common with any of them, token by token, is not computed again."""

from collections.abc import Iterable
from typing import NamedTuple

from edgeq.kernels.layout import ATTENTION_BLOCK
from edgeq.runtime.sequence import Sequence

MOST = 64  # texts


class Known(NamedTuple):
    """A sequence and the tokens that it has evaluated, at least."""

    tokens: list[int]
    sequence: Sequence


class Prefixes:
    """Those that nobody writes on, the latest used last; together they take at most `most_bytes`."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: list[Known] = []

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, tokens: list[int], sequence: Sequence) -> None:
        """Keep a text that is not written on any more. Those that it goes on from are kept as its beginning."""
        tokens = tokens[: sequence.position]
        if not tokens:
            return
        self._kept = [each for each in self._kept if not _within(each, tokens, sequence)]
        self._kept.append(Known(tokens, sequence))
        while len(self._kept) > 1 and (len(self._kept) > MOST or self._nbytes > self._most_bytes):
            self.forget()

    @property
    def _nbytes(self) -> int:
        held: dict[int, int] = {}
        for known in self._kept:
            held |= known.sequence.held
        return sum(held.values())

    def forget(self) -> bool:
        """Give up the text that was used least recently; whether there was one."""
        return bool(self._kept) and bool(self._kept.pop(0))

    def clear(self) -> None:
        """Give up all."""
        self._kept.clear()

    def take(self, tokens: list[int], most: int, others: Iterable[Known] = ()) -> Sequence | None:
        """A sequence that has evaluated as many of the first `most` of `tokens` as any kept one has, or one of
        `others`, which somebody writes on: a fork, or a kept one itself where little else would be lost."""
        best, found = 0, None
        for known in [*reversed(self._kept), *others]:
            reached = known.sequence.reachable(common(known.tokens[: known.sequence.position], tokens, most))
            if reached > best:
                best, found = reached, known
        if found is None:
            return None
        place = next((i for i, known in enumerate(self._kept) if known is found), None)
        sequence = found.sequence
        if place is not None:
            del self._kept[place]
            if sequence.position - best >= ATTENTION_BLOCK:
                self._kept.append(found)
                place = None
        if place is None:
            sequence = sequence.fork()
        sequence.trim(best)
        return sequence


def _within(known: Known, tokens: list[int], sequence: Sequence) -> bool:
    """Whether a longer text's sequence can go back to where this one ends."""
    length = len(known.tokens)
    return known.tokens == tokens[:length] and sequence.reachable(length) == length


def common(one: list[int], other: list[int], most: int) -> int:
    """Length of their common beginning, at most `most`."""
    low, high = 0, min(len(one), len(other), most)
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # the first `low` are the same, the first `high` are not
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
