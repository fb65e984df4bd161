"""Pages of sequences: shared by forks, copied before they are written, given back, never more than the budget."""

import gc
import os
import random
import threading

import numpy as np
import pytest

from edgeq.errors import MemoryLimitError
from edgeq.graph import pages
from edgeq.graph.heads import Heads
from edgeq.graph.pages import Kept, KeysAndValues, PageGroup
from edgeq.runtime.pool import SPARE, Pool
from edgeq.runtime.sequence import Sequence
from edgeq.runtime.states import Pages

PAGE, BLOCKS, WINDOW = 256, 6, 40


class OneByte(Kept):
    """A byte for each position."""

    def overflowed(self, part: np.ndarray) -> bool:
        return bool((part == 255).any())

    def blank(self, part: np.ndarray, first: int) -> None:
        part[first:] = 0


def group(window: int | None) -> PageGroup:
    made = PageGroup(window, 1)
    made.add(OneByte(window, 1, PAGE))
    return made


class Text:
    """A sequence, and what must stand in its pages: the byte of each position."""

    def __init__(self, sequence: Sequence, bytes: list[int]) -> None:
        self.sequence, self.bytes = sequence, bytes

    def append(self, count: int, value: int) -> None:
        self.sequence.extend(count)
        start = self.sequence.position
        for state in self.sequence.states:
            for position in range(start, start + count):
                state._pages[position // PAGE].data[position % PAGE] = value
        self.sequence.position += count
        self.bytes += [value] * count

    def check(self) -> None:
        """What the next token sees."""
        end = self.sequence.position
        assert end == len(self.bytes)
        for state in self.sequence.states:
            first = 0 if state._group.window is None else max(0, end + 1 - WINDOW)
            for block in range(first // PAGE, -(-end // PAGE)):
                page, here = state._pages[block], slice(max(first, block * PAGE), min(end, block * PAGE + PAGE))
                assert page.address == state._table[block], "kernels find what was written"
                assert page.data[here.start % PAGE :][: here.stop - here.start].tolist() == self.bytes[here]

    @property
    def pages(self) -> set[int]:
        found = {page.address for state in self.sequence.states for page in state._pages if page is not None}
        assert found == {int(entry) for state in self.sequence.states for entry in state._table if entry}
        return found


def test_no_page_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is appended to, forked, trimmed and dropped: what is there is what sequences have, once each."""
    monkeypatch.setattr(pages, "REWIND", 300)
    pool = Pool(40 * PAGE)
    groups, draw = [group(None), group(WINDOW)], random.Random(5)
    texts: list[Text] = []
    refused = forked = gone = 0
    for number in range(5_000):
        kind = draw.random()
        if not texts or (kind < 0.03 and len(texts) < 12):
            texts.append(Text(Sequence([Pages(each, pool, BLOCKS) for each in groups]), []))
            continue
        text = draw.choice(texts)
        if kind < 0.6:
            count = min(draw.choice([1, 1, 2, 30, 255, 256, 400]), PAGE * BLOCKS - len(text.bytes))
            try:
                text.append(count, number % 251)
            except MemoryLimitError:
                refused += 1
                assert pool.used > pool.budget - PAGE
        elif kind < 0.8:
            to = draw.randrange(len(text.bytes) + 1)
            reached = text.sequence.trim(to)
            assert reached <= to
            gone += reached < to
            del text.bytes[reached:]
        elif kind < 0.9 and len(texts) < 12:
            texts.append(Text(text.sequence.fork(), list(text.bytes)))
            forked += 1
        elif kind > 0.95:
            texts.remove(text)
            del text
            continue
        text.check()
        assert pool.used == PAGE * len(set().union(*(each.pages for each in texts))) <= pool.budget
    assert min(refused, forked, gone) > 100
    texts.clear()
    del text
    assert pool.used == 0


def test_a_fork_copies_what_it_writes_to() -> None:
    pool = Pool(10 * PAGE)
    text = Text(Sequence([Pages(group(None), pool, BLOCKS)]), [])
    text.append(300, 1)
    other = Text(text.sequence.fork(), list(text.bytes))
    assert pool.used == 2 * PAGE and other.sequence.nbytes == 2 * PAGE
    other.append(1, 2)
    assert pool.used == 3 * PAGE and len(text.pages & other.pages) == 1
    text.append(400, 3)
    text.check()
    other.check()
    assert not text.sequence.overflowed()
    text.append(1, 255)
    assert text.sequence.overflowed() and not other.sequence.overflowed()


def test_what_others_no_longer_have_is_not_copied() -> None:
    """There may be no room for a copy."""
    pool = Pool(2 * PAGE)
    text = Text(Sequence([Pages(group(None), pool, BLOCKS)]), [])
    text.append(300, 1)
    other = text.sequence.fork()
    with pytest.raises(MemoryLimitError):
        text.append(1, 2)
    del other
    text.append(1, 2)
    text.check()


def test_a_window_gives_back_what_nobody_will_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "REWIND", 0)
    pool = Pool(2 * PAGE)
    text = Text(Sequence([Pages(group(WINDOW), pool, BLOCKS)]), [])
    for _ in range(PAGE * BLOCKS // 64):
        text.append(64, 1)
        text.check()
    assert text.sequence.nbytes <= 2 * PAGE
    assert text.sequence.reachable(PAGE * BLOCKS - 100) == PAGE * BLOCKS - 100
    assert text.sequence.reachable(3 * PAGE) == 0
    assert text.sequence.trim(3 * PAGE) == 0 == text.sequence.position == pool.used


def test_the_system_has_back_what_was_given_back() -> None:
    pool = Pool(1 << 40)
    held = [pool.take(SPARE // 4) for _ in range(10)]
    for page in held:
        page.data[:] = 1
    addresses = {page.address for page in held}
    del page, held
    assert pool.used == 0 and pool.spare == SPARE, "but for some, which are used again"
    held = [pool.take(SPARE // 4) for _ in range(6)]
    assert len(addresses & {page.address for page in held[:4]}) == 4 and pool.spare == 0
    assert not held[4].data.any()


def test_spare_pages_are_within_the_budget() -> None:
    pool = Pool(10 * PAGE)
    held = [pool.take(PAGE) for _ in range(10)]
    held.clear()
    assert (pool.used, pool.spare) == (0, 10 * PAGE)
    held.append(pool.take(2 * PAGE))
    assert (pool.used, pool.spare) == (2 * PAGE, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_writes_to_pages_of_its_own() -> None:
    page = Pool(PAGE).take(PAGE)
    child = os.fork()
    if not child:
        page.data[:] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not page.data.any()


def test_a_budget_holds_in_threads() -> None:
    pool, most = Pool(50 * PAGE), []

    def work() -> None:
        held = []
        draw = random.Random(threading.get_ident())
        for _ in range(400):
            try:
                held.append(pool.take(PAGE))
            except MemoryLimitError:
                held.clear()
            most.append(pool.used)
            if draw.random() < 0.3 and held:
                held.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(most) == 1600 and max(most) <= pool.budget and pool.used == 0


def test_a_page_that_a_finalizer_brings_back_is_nobody_elses():
    pool, back = Pool(1 << 20), []

    class Circle:
        def __init__(self, page):
            self.page, self.itself = page, self

        def __del__(self):
            back.append(self)

    address = Circle(pool.take(4096)).page.address
    gc.collect()
    assert back[0].page.address == address and pool.used == 4096
    assert pool.take(4096).address != address
    back.pop().itself = None
    assert pool.used == 0


@pytest.mark.parametrize(
    ("value", "one_place", "each"), [(np.nan, True, False), (np.inf, True, True), (1, False, False)]
)
def test_what_a_cache_could_not_hold_is_seen(value: float, one_place: bool, each: bool) -> None:
    """Where an encoder's layers share a place, only the last one's keys are there, which are no numbers if those of an
    earlier one were past the range."""
    for causal, expected in ((False, one_place), (True, each)):
        kept = KeysAndValues(Heads(2, 2, 16, causal=causal), PAGE, "f16")
        part = np.zeros(kept.nbytes, np.uint8)
        part.view(np.float16)[5] = value
        assert kept.overflowed(part) == expected
