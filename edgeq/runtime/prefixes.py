"""Texts that were evaluated: what a new one has in common with any of them, token by token, is not computed again."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from edgeq.kernels.layout import ATTENTION_BLOCK
from edgeq.runtime.mixed_text import around
from edgeq.runtime.sequence import Sequence


class Known(NamedTuple):
    """A sequence and the tokens that it has evaluated, at least."""

    tokens: list[int]
    sequence: Sequence


class Node:
    """A place in the tree of kept texts: `tokens` lead to it from the one above, in which no two below begin alike."""

    def __init__(self, tokens: list[int], above: "Node | None") -> None:
        self.tokens, self.above = tokens, above
        self.below: dict[int, Node] = {}  # by the first of their tokens


class Prefixes:
    """Those that nobody writes on, the latest used last; together they take at most `most_bytes`.

    Their tree tells where to look; what they have in common with a text is what their own tokens say, so that an
    interrupt in its midst loses a place at most. Pages that texts share count once, and stay with the last of these.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._root = Node([], None)
        self._kept: dict[Node, Known] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, tokens: list[int], sequence: Sequence) -> None:
        """Keep a text that is not written on any more. Those that it goes on from are kept as its beginning, and it is
        as the beginning of one that goes on from it."""
        tokens = tokens[: sequence.position]
        if not tokens:
            return
        path = self._path(tokens, len(tokens))
        if path[-1][0] == len(tokens):
            for node in self._from(path[-1][1]):
                if node in self._kept and _serves(self._kept[node], tokens):
                    self._kept[node] = self._kept.pop(node)
                    return
        own = Known(tokens, sequence)
        for _, node in path:
            if node in self._kept and _serves(own, self._kept[node].tokens):
                self._kept.pop(node)
        self._kept[self._place(tokens, *path[-1])] = own
        while len(self._kept) > 1 and self._nbytes > self._most_bytes:
            self.forget()

    @property
    def _nbytes(self) -> int:
        held: dict[int, int] = {}
        for known in self._kept.values():
            held |= known.sequence.held
        return sum(held.values())

    def forget(self) -> bool:
        """Give up the text that was used least recently; whether there was one."""
        for node in self._kept:
            self._drop(node)
            return True
        return False

    def clear(self) -> None:
        """Give up all."""
        self._kept.clear()
        self._root = Node([], None)

    def take(self, tokens: list[int], most: int, others: Iterable[Known] = ()) -> Sequence | None:
        """A sequence that has evaluated as many of the first `most` of `tokens` as any kept one has, or one of
        `others`, which somebody writes on: a fork, or a kept one itself where little else would be lost."""
        best, found, place = 0, None, None
        for shared, node in self._likely(tokens, most):
            if shared <= best:
                break
            reached = _reached(self._kept[node], tokens, most)
            if reached > best:
                best, found, place = reached, self._kept[node], node
        for other in others:
            reached = _reached(other, tokens, most)
            if reached > best:
                best, found, place = reached, other, None
        if found is None:
            return None
        sequence = found.sequence
        if place is not None and sequence.position - best < ATTENTION_BLOCK:
            self._drop(place)
        else:
            if place is not None:
                self._kept[place] = self._kept.pop(place)
            sequence = sequence.fork()
        sequence.trim(best)
        return sequence

    def _path(self, tokens: list[int], most: int) -> list[tuple[int, Node]]:
        """The nodes from the root on that the first `most` of `tokens` lead to or into, each with how many of them do;
        of the last one maybe only a part of its own."""
        node, at = self._root, 0
        path = [(at, node)]
        while at < most and (below := node.below.get(tokens[at])) is not None:
            shared = common(below.tokens, tokens[at : at + len(below.tokens)], most - at)
            node, at = below, at + shared
            path.append((at, node))
            if shared < len(node.tokens):
                break
        return path

    def _likely(self, tokens: list[int], most: int) -> Iterator[tuple[int, Node]]:
        """The nodes of kept texts by how many of the first `most` of `tokens` they begin with, the most first, and the
        nearest first among these."""
        beyond = None
        for shared, node in reversed(self._path(tokens, most)):
            for each in self._from(node, beyond):
                if each in self._kept:
                    yield shared, each
            beyond = node

    @staticmethod
    def _from(node: Node, beyond: Node | None = None) -> Iterator[Node]:
        """It and all below it, but for `beyond` and what is below that."""
        waiting = deque([node])
        while waiting:
            node = waiting.popleft()
            yield node
            waiting.extend(each for each in node.below.values() if each is not beyond)

    def _place(self, tokens: list[int], at: int, node: Node) -> Node:
        """The node of a text that shares its first `at` tokens with one at `node`, or with a part of what leads there:
        that is cut in two."""
        inside, above = 0, node
        while above.above is not None:
            inside, above = inside + len(above.tokens), above.above
        if (rest := inside - at) > 0:
            assert node.above is not None
            cut = len(node.tokens) - rest
            upper = Node(node.tokens[:cut], node.above)
            upper.below[node.tokens[cut]] = node
            node.above.below[node.tokens[0]] = upper
            node.tokens, node.above = node.tokens[cut:], upper
            node = upper
        if at < len(tokens):
            node.below[tokens[at]] = node = Node(tokens[at:], node)
        return node

    def _drop(self, node: Node) -> None:
        """Give up the text that is kept there, and the places that only led to it."""
        del self._kept[node]
        while node.above is not None and not node.below and node not in self._kept:
            node.above.below.pop(node.tokens[0], None)
            node = node.above


def _reached(known: Known, tokens: list[int], most: int) -> int:
    """How many of the first `most` of `tokens` a sequence has evaluated and can go on from; not within an image, whose
    rows may see one another."""
    reached = common(known.tokens[: known.sequence.position], tokens, most)
    while True:
        first = min(around(tokens, reached)[0], around(known.tokens, reached)[0])
        reached = known.sequence.reachable(first)
        if reached == first:
            return first


def _serves(known: Known, tokens: list[int]) -> bool:
    """Whether a text begins with all of `tokens`, and can go on from their end."""
    return _reached(known, tokens, len(tokens)) == len(tokens)


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
