"""The tree of kept texts finds what any of them has in common with a new one, and keeps no page that nobody needs."""

import random
from collections import Counter

import numpy as np
import pytest

from edgeq.errors import MemoryLimitError
from edgeq.graph import pages
from edgeq.graph.pages import Kept, PageGroup
from edgeq.kernels.layout import ATTENTION_BLOCK as PAGE
from edgeq.runtime.mixed_text import key_of
from edgeq.runtime.pool import Pool
from edgeq.runtime.prefixes import Known, Node, Prefixes, common
from edgeq.runtime.sequence import Sequence
from edgeq.runtime.states import Pages

BLOCKS = 5


class Tokens(Kept):
    """A byte for each position: its token."""

    def overflowed(self, part: np.ndarray) -> bool:
        return False

    def blank(self, part: np.ndarray, first: int) -> None:
        part[first:] = 0


def group(window: int | None = None) -> PageGroup:
    made = PageGroup(window, 1)
    made.add(Tokens(window, 1, PAGE))
    return made


def empty(pool: Pool, windows: tuple[int | None, ...] = (None,)) -> Sequence:
    return Sequence([Pages(group(window), pool, BLOCKS) for window in windows])


def write(sequence: Sequence, tokens: list[int]) -> Sequence:
    """Evaluate what is missing of a text."""
    start = sequence.position
    sequence.extend(len(tokens) - start)
    for state in sequence.states:
        for position in range(start, len(tokens)):
            state._pages[position // PAGE].data[position % PAGE] = tokens[position]
    sequence.position = len(tokens)
    return sequence


def check(sequence: Sequence, tokens: list[int], windows: tuple[int | None, ...] = (None,)) -> None:
    """Its pages hold these tokens, as far as the next one sees them."""
    assert sequence.position == len(tokens)
    for state, window in zip(sequence.states, windows, strict=True):
        first = 0 if window is None else max(0, len(tokens) + 1 - window)
        found = [int(state._pages[at // PAGE].data[at % PAGE]) for at in range(first, len(tokens))]
        assert found == tokens[first:]


def kept(prefixes: Prefixes) -> list[list[int]]:
    """The texts, the one used least recently first."""
    return [known.tokens for known in prefixes._kept.values()]


def nodes(prefixes: Prefixes) -> list[Node]:
    """All places; each is where those above say, and has a reason to be there."""
    found = [*Prefixes._from(prefixes._root)]
    for node in found[1:]:
        assert node.above.below[node.tokens[0]] is node and (node.below or node in prefixes._kept)
    return found


@pytest.fixture
def pool() -> Pool:
    return Pool(1000 * PAGE)


def test_texts_are_found_token_by_token(pool):
    prefixes = Prefixes(100 * PAGE)
    for text in ([1] * 300, [1] * 280 + [2] * 100, [1] * 280 + [3] * 100, [4, 5]):
        prefixes.keep(text, write(empty(pool), text))
    assert len(prefixes) == 4 and len(nodes(prefixes)) == 6
    for text, reached in (([1] * 280 + [3, 3, 9], 282), ([1] * 299 + [7], 299), ([1] * 10 + [8], 10), ([4, 5, 6], 2)):
        found = prefixes.take(text, len(text) - 1)
        assert found.position == reached
        check(found, text[:reached])
        prefixes.keep(text[:reached], found)
    assert prefixes.take([6, 6], 1) is None and prefixes.take([1], 0) is None


def test_one_that_goes_on_from_another_is_kept_in_its_place(pool):
    prefixes, text = Prefixes(100 * PAGE), [*range(200)]
    prefixes.keep(text[:50], write(empty(pool), text[:50]))
    prefixes.keep(text[:120], write(empty(pool), text[:120]))
    prefixes.keep([7], write(empty(pool), [7]))
    prefixes.keep(text[:80], write(empty(pool), text[:80]))
    assert kept(prefixes) == [[7], text[:120]], "the longer one serves, and was used last"
    assert pool.used == 2 * PAGE
    found = prefixes.take([*text[:60], 250], 60)
    assert kept(prefixes) == [[7]], "little of it would be lost"
    check(found, text[:60])


def test_what_was_used_least_recently_goes_first_within_the_bytes(pool):
    prefixes = Prefixes(4 * PAGE)
    for first in range(4):
        prefixes.keep([first] * 10, write(empty(pool), [first] * 10))
    prefixes.keep([0] * 600, write(prefixes.take([0] * 600, 599), [0] * 600))
    assert kept(prefixes) == [[3] * 10, [0] * 600] and pool.used == 4 * PAGE
    assert prefixes.take([0] * 5, 4).position == 4, "a fork, for more than a page would be lost"
    prefixes.keep([5], write(empty(pool), [5]))
    assert kept(prefixes) == [[0] * 600, [5]]
    assert prefixes.forget() and prefixes.forget() and not prefixes.forget()
    assert len(nodes(prefixes)) == 1 and pool.used == 0


def test_pages_that_are_shared_count_once(pool):
    """A hundred texts of one beginning, each with a page of its own, in the bytes of these and one beginning."""
    prefixes, system = Prefixes(102 * PAGE), [9] * (2 * PAGE)
    prefixes.keep(system, write(empty(pool), system))
    for user in range(100):
        text = [*system, *[user] * PAGE]
        found = prefixes.take(text, len(text) - 1)
        assert found.position == 2 * PAGE
        prefixes.keep(text, write(found, text))
    assert len(prefixes) == 100 and pool.used == 102 * PAGE
    prefixes.keep([1], write(empty(pool), [1]))
    assert len(prefixes) == 100 and pool.used == 102 * PAGE, "the oldest made room"


@pytest.mark.parametrize("windows", [(None,), (None, 40), (40,)], ids=str)
def test_no_page_is_lost_whatever_is_done(windows, monkeypatch, operations=2000):
    """Texts that begin alike are taken up, written on, trimmed, forked, kept and dropped, in a pool that is too small:
    what was found is what their tokens say, and no less than the best of all; pages in use are those of somebody."""
    monkeypatch.setattr(pages, "REWIND", 64)
    pool, draw, did = Pool(len(windows) * 12 * PAGE), random.Random(len(windows)), Counter[str]()
    prefixes = Prefixes(len(windows) * 6 * PAGE)
    going: list[tuple[list[int], Sequence]] = []

    def text() -> list[int]:
        length = draw.choice([1, 5, 60, 255, 256, 257, 500, 800])
        change = draw.randrange(length)
        return [draw.randrange(2)] * change + [draw.randrange(3)] * (length - change)

    def begin() -> None:
        wanted, others = text(), [Known(*each) for each in going]
        most = len(wanted) - 1
        known = [*prefixes._kept.values(), *others]
        best = max([each.sequence.reachable(common(each.tokens, wanted, most)) for each in known], default=0)
        found = prefixes.take(wanted, most, others)
        assert (0 if found is None else found.position) == best
        did["found"] += best > 0
        going.append((wanted[:best], empty(pool, windows) if found is None else found))

    def change(kind: str, tokens: list[int], sequence: Sequence) -> None:
        if kind == "keep":
            prefixes.keep(tokens, sequence)
        if kind in ("keep", "drop"):
            return
        if kind == "go on":
            more = [*tokens, *[draw.randrange(3)] * draw.choice([1, 3, 200])][: PAGE * BLOCKS]
            try:
                write(sequence, more)
                tokens = more
            except MemoryLimitError:
                did["refused"] += 1
        elif kind == "trim":
            tokens = tokens[: sequence.trim(draw.randrange(len(tokens) + 1))]
        elif kind == "fork" and len(going) < 10:
            going.append((list(tokens), sequence.fork()))
        check(sequence, tokens, windows)
        going.append((tokens, sequence))

    kinds = ["begin", "begin", "go on", "go on", "go on", "trim", "fork", "keep", "drop", "forget"]
    for _ in range(operations):
        kind = draw.choice(kinds)
        if kind == "begin" and len(going) < 6:
            begin()
        elif kind == "forget":
            did["forgot"] += draw.random() < 0.2 and prefixes.forget()
        elif going:
            did[kind] += 1
            change(kind, *going.pop(draw.randrange(len(going))))
        nodes(prefixes)
        held = [sequence.held for _, sequence in going] + [known.sequence.held for known in prefixes._kept.values()]
        assert pool.used == PAGE * len({address for each in held for address in each}) <= pool.budget
        assert len(prefixes) <= 1 or prefixes._nbytes <= len(windows) * 6 * PAGE
    assert min(did[kind] for kind in ("found", "forgot", "keep", "fork")) > operations // 100 and did["refused"] > 0
    going.clear()
    prefixes.clear()
    assert pool.used == 0


@pytest.mark.parametrize(
    ("asked", "most", "reached"),
    [((0, 1, 2, 3), 3, 2), ((0, 1, 2, 3), 5, 2), ((0, 1), 4, 2), ((0, 1, 2, 3), 6, 6), ((0, 1, 2, 3), 7, 7)],
)
def test_nothing_is_taken_that_ends_within_an_image(pool, asked, most, reached):
    """Whose rows see those behind them: what was evaluated of half of one is worth nothing."""
    prefixes, sequence = Prefixes(100 * PAGE), empty(pool)
    sequence.extend(7)
    sequence.position = 7
    prefixes.keep([1, 2, *(key_of(3, row) for row in range(4)), 9], sequence)
    assert prefixes.take([1, 2, *(key_of(3, row) for row in asked), 9], most).position == reached
