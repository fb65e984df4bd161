"""States that replace themselves: checkpoints, forks, what is left of a pass that was broken off."""

from collections.abc import Callable

import numpy as np
import pytest

from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError
from edgeq.graph.pages import RECURRENT, PageGroup, RecurrentState, checkpoints, most_pages
from edgeq.runtime import saved
from edgeq.runtime.pool import Pool
from edgeq.runtime.program import Part, Program
from edgeq.runtime.recurrent import Recurrent
from edgeq.runtime.request import Request
from edgeq.runtime.scheduler import Scheduler
from edgeq.runtime.session import Session

PAGE = 64
CASES = ("qwen3-5", "mamba", "rwkv7")  # beside attention, and by themselves


def state(budget: int = 100, blocks: int = 64) -> Recurrent:
    group = PageGroup(RECURRENT, 16)
    group.add(RecurrentState(PAGE))
    return Recurrent(group, Pool(budget * PAGE), blocks)


def evaluated(one: Recurrent, end: int, start: int = 0, step: int = 200) -> Recurrent:
    for first in range(start, end, step):
        last = min(first + step, end)
        one.extend(first, last)
        one.passing(first, last)
    return one


def test_checkpoints_are_fewer_the_further_back() -> None:
    assert checkpoints(0) == [] and checkpoints(2) == [0, 1] and checkpoints(16) == [7, 11, 13, 14, 15]
    for last in range(1, 300):
        kept = checkpoints(last)
        assert kept[-1] == last - 1 and len(kept) <= last.bit_length() + 1
        assert set(kept) <= {*checkpoints(last - 1), last - 1}, "one that was given up is not wanted again"
        for back in range(1, last + 1):  # at most three times as far as one would go back
            assert max((page + 1 for page in kept if page < last - back + 1), default=0) >= last - 3 * back


def test_it_goes_back_to_a_checkpoint() -> None:
    one = evaluated(state(), 1000)
    assert one.reachable(1000) == 1000 and one.reachable(999) == 768 and one.reachable(600) == 512
    assert one.trim(800) == 768 and one.reachable(768) == 768
    assert len(one.held) == 2
    assert evaluated(one, 900, 768).reachable(900) == 900
    assert one.trim(100) == 0 and not one.held


@pytest.mark.parametrize("context", [100, 256, 1000, 8192])
@pytest.mark.parametrize("batch", [1, 100, 512])
def test_it_never_takes_more_than_is_said(context: int, batch: int) -> None:
    one, most = state(blocks=-(-context // 256)), 0
    for first in range(0, context, batch):
        end = min(first + batch, context)
        one.extend(first, end)
        one.passing(first, end)
        most = max(most, len(one.held))
    assert most <= most_pages(RECURRENT, context, batch) <= -(-context // 256)
    assert most_pages(RECURRENT, 0, batch) == 0


def test_a_pass_that_was_broken_off() -> None:
    """What it began to change is no state of anything."""
    one = evaluated(state(), 300)
    one.extend(300, 310)
    assert one.passing(300, 310) == 256
    assert one.reachable(300) == 256 and one.trim(300) == 256
    first = state()
    first.extend(0, 5)
    assert first.passing(0, 5) == 0 and first.reachable(4) == 0


def test_forks_copy_what_they_change() -> None:
    one = evaluated(state(), 300)
    two = one.fork()
    assert one.held.keys() == two.held.keys()
    two.extend(300, 301)
    two.passing(300, 301)
    assert len(one.held.keys() & two.held.keys()) == 1 and one.reachable(300) == 300
    one.extend(300, 301)
    assert len(one.held.keys() & two.held.keys()) == 1


def test_no_room_changes_nothing() -> None:
    one = evaluated(state(budget=2), 300)
    with pytest.raises(MemoryLimitError):
        one.extend(300, 600)
    assert one.reachable(300) == 300


def tokens(count: int) -> np.ndarray:
    return np.random.RandomState(count).randint(0, 48, count)


@pytest.mark.parametrize("case", CASES)
def test_a_program_goes_on_after_a_pass_that_was_broken_off(
    case: str, opened: Callable[[str], File], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the latest checkpoint, with the same bits; and so do forks that are older than that."""
    program, ids = Program(opened(case), context=600, threads=2, budget=1 << 28), tokens(320)
    sequence = program.sequence()
    program.step([Part(sequence, ids[:310], [])])
    fork = sequence.fork()
    expected = program.step([Part(fork.fork(), ids[310:], range(10))])[0]
    walk = program._walk

    def interrupted(first: int, end: int) -> None:
        walk(first, end)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_walk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program.step([Part(sequence, ids[310:], range(10))])
    monkeypatch.undo()
    assert sequence.position == 256
    np.testing.assert_array_equal(program.step([Part(sequence, ids[256:], range(54, 64))])[0], expected)
    np.testing.assert_array_equal(program.step([Part(fork, ids[310:], range(10))])[0], expected)
    program.close()


@pytest.mark.parametrize("case", CASES)
def test_a_session_goes_back_to_a_checkpoint(case: str, opened: Callable[[str], File]) -> None:
    ids = tokens(400).tolist()
    with Session(opened(case), context=600, threads=2) as session:
        expected = session.eval(ids, all_logits=True)
        assert session.rewindable(390) == 256
        session.rewind(256)
        np.testing.assert_array_equal(session.eval(ids[256:], all_logits=True), expected[256:])


def test_a_loaded_text_goes_back_to_the_checkpoint_before(opened: Callable[[str], File], tmp_path) -> None:
    program, ids = Program(opened("qwen3-5"), context=900, threads=2, budget=1 << 28), tokens(700)
    sequence = program.sequence()
    for first, end in ((0, 500), (500, 700)):
        expected = program.step([Part(sequence, ids[first:end], range(end - first))])[0]
    saved.save(tmp_path / "a.eqp", program, ids.tolist(), sequence, {})
    _, loaded, _ = saved.load(tmp_path / "a.eqp", program)
    assert loaded.position == 700 and loaded.trim(650) == 512 and loaded.reachable(500) == 0
    np.testing.assert_array_equal(program.step([Part(loaded, ids[512:], range(188))])[0], expected[12:])
    program.close()


@pytest.mark.parametrize("case", CASES)
def test_texts_that_share_a_beginning_and_pages_that_run_out(case: str, opened: Callable[[str], File]) -> None:
    """What a scheduler makes of them: each text is the one that it is alone, guesses are not computed along."""
    program = Program(opened(case), context=700, threads=2, texts=2)
    beginning = [1, 2, 3, 4, 5, 6, 7, 8] * 40
    prompts = [[*beginning, 40 + number] for number in range(5)]

    def written(together: bool) -> list[list[int]]:
        scheduler = Scheduler(program)
        requests = [Request(one, 12, choose, guesser=Eager()) for one in prompts]
        for group in [requests] if together else [[one] for one in requests]:
            for one in group:
                scheduler.add(one)
            while any(not one.complete for one in group):
                for one in group:
                    scheduler.next(one)
            for one in group:
                scheduler.leave(one)
        assert not any(one.drafted for one in requests)
        cached = [one.cached for one in requests]
        assert together or cached == [0, 256, 256, 256, 256]
        scheduler.close()
        return [one.tokens for one in requests]

    assert written(together=True) == written(together=False)
    program.close()


def choose(logits: np.ndarray, tokens: list[int]) -> tuple[int, None]:
    return int(logits.argmax()), None


class Eager:
    """Guesses whatever there is room for."""

    def draft(self, tokens: list[int], room: int) -> list[int]:
        return tokens[:room]

    def drawn(self, token: int) -> None:
        pass

    def took(self, rows: int, seconds: float) -> None:
        pass

    def stop(self) -> None:
        pass
