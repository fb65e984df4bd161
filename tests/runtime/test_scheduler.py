"""Many requests at once: each gets the tokens that it gets alone, whatever the others do."""

import gc
import random
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.container.reader import File
from edgeq.decode.sampler import Sampler
from edgeq.errors import EdgeqError, MemoryLimitError, UsageError
from edgeq.graph import pages
from edgeq.runtime import scheduler as module
from edgeq.runtime.batch import Batch
from edgeq.runtime.program import Program
from edgeq.runtime.request import Guesser, Request
from edgeq.runtime.scheduler import AHEAD, Scheduler
from edgeq.runtime.session import Session

CONTEXT = 600
# attention; windows; convolutions; states that replace themselves
CASES = [("tiny", 1), ("tiny", 3), ("gemma3", 1), ("lfm2-bias", 1), ("qwen3-5", 1), ("rwkv7", 1)]


class Guesses:
    """Guesses several tokens each time, whatever that takes: some right, where it knows what comes, others wrong."""

    def __init__(self, wrong: random.Random, prompt: int) -> None:
        self.wrong, self.prompt = wrong, prompt
        self.coming: list[int] = []

    def draft(self, tokens: list[int], room: int) -> list[int]:
        known = self.coming[len(tokens) - self.prompt :][: self.wrong.randrange(4)]
        return [*known, *(self.wrong.randrange(40) for _ in range(self.wrong.randrange(4)))][:room]

    def drawn(self, token: int) -> None: ...
    def took(self, rows: int, seconds: float) -> None: ...
    def stop(self) -> None: ...


class Asked:
    """A request, and how it goes on alone: tokens, and what the logits were that they were drawn from, to the bit."""

    def __init__(self, prompt: list[int], most: int, seed: int | None, guesser: Guesser | None = None) -> None:
        self.prompt, self.most, self.seed, self.guesser = prompt, most, seed, guesser
        self.sampler = Sampler(temperature=0.0) if seed is None else Sampler(temperature=2.0, top_k=0, seed=seed)

    def request(self, group: object = None) -> Request:
        def choose(logits: np.ndarray, before: list[int]) -> tuple[int, int]:
            return self.sampler.sample(logits, before), zlib.crc32(logits)

        return Request(self.prompt, self.most, choose, (), group, self.guesser)

    def drawn(self, session: Session) -> list[tuple[int, int]]:
        other = Asked(self.prompt, self.most, self.seed).sampler
        session.rewind(0)
        tokens, new, found = list(self.prompt), self.prompt, []
        for _ in range(self.most):
            logits = session.eval(new)[0]
            new = [other.sample(logits, tokens)]
            tokens += new
            found.append((*new, zlib.crc32(logits)))
        return found

    def alone(self, session: Session) -> list[int]:
        return [token for token, _ in self.drawn(session)]


def fetch_drawn(scheduler: Scheduler, request: Request, most: int = 1 << 30) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while len(found) < most and (drawn := scheduler.next(request)) is not None:
        found.append((drawn.token, drawn.note))
    return found


def fetch(scheduler: Scheduler, request: Request, most: int = 1 << 30) -> list[int]:
    return [token for token, _ in fetch_drawn(scheduler, request, most)]


def in_threads(works: list[Callable[[], None]]) -> None:
    wrong: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if wrong:
        raise wrong[0]


def draw_asked(data: st.DataObject, vocab: int, seen: dict[int, np.ndarray]) -> Asked:
    """A prompt that may begin as others do, of any length."""
    text = seen.setdefault(
        which := data.draw(st.integers(0, 2)), np.random.RandomState(which).randint(0, vocab, CONTEXT)
    )
    length = data.draw(st.sampled_from([1, 2, 20, 60, 255, 256, 257, 400]))
    own = data.draw(st.integers(0, 3)) if length > 1 else 0
    prompt = text[:length].tolist()
    prompt[length - own :] = [(token + 1) % vocab for token in prompt[length - own :]]
    guesser = Guesses(random.Random(which), length) if data.draw(st.booleans()) else None
    return Asked(prompt, data.draw(st.sampled_from([1, 3, 12, 40])), data.draw(st.sampled_from([None, 1, 2])), guesser)


def run_schedules(opened: Callable[[str], File], case: str, threads: int, examples: int) -> tuple[int, int]:
    """Requests of several threads, alone and in groups, several of one prompt, cancelled ones, right and wrong guesses,
    kept texts, memory for little more than one. How many such schedules, and of how many tokens, were compared with
    what each request gets alone; AssertionError at a difference."""
    program = Program(opened(case), context=CONTEXT, batch=96, threads=threads)
    vocab, expected, compared = program.model.vocab_size, {}, []
    with Session(opened(case), context=CONTEXT, threads=1) as session, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "REWIND", 300)

        def check(asked: Asked, found: list[tuple[int, int]]) -> None:
            key = (tuple(asked.prompt), asked.most, asked.seed)
            if key not in expected:
                expected[key] = asked.drawn(session)
            assert found == expected[key][: len(found)]

        @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
        @given(st.data())
        def run(data: st.DataObject) -> None:
            program.pool.budget = int(program.sequence_bytes * data.draw(st.sampled_from([1.0, 1.4, 3.0, 20.0])))
            scheduler, seen = Scheduler(program), dict[int, np.ndarray]()
            works: list[Callable[[], None]] = []
            done: list[tuple[Asked, list[tuple[int, int]]]] = []
            for _ in range(data.draw(st.integers(1, 3))):
                group = object() if data.draw(st.booleans()) else None
                batch = [draw_asked(data, vocab, seen) for _ in range(data.draw(st.integers(1, 5)))]
                if data.draw(st.booleans()):
                    batch = [Asked(batch[0].prompt, one.most, one.seed, one.guesser) for one in batch]
                for one in batch:
                    if isinstance(one.guesser, Guesses):
                        key = (tuple(one.prompt), one.most, one.seed)
                        one.guesser.coming = [token for token, _ in expected.get(key, ())]
                fetched = [data.draw(st.sampled_from([one.most, one.most, 1, 0])) for one in batch]

                def work(batch: list[Asked] = batch, fetched: list[int] = fetched, group: object = group) -> None:
                    requests = [one.request(group) for one in batch]
                    for request in requests:
                        scheduler.add(request)
                    for one, request, most in zip(batch, requests, fetched, strict=True):
                        found = fetch_drawn(scheduler, request, most)
                        assert len(found) == most
                        scheduler.leave(request)
                        done.append((one, found))

                works.append(work)
            in_threads(works)
            for asked, found in done:
                check(asked, found)
            assert program.pool.used <= program.pool.budget
            scheduler.close()
            gc.collect()
            assert program.pool.used == 0
            compared.append(sum(len(found) for _, found in done))

        run()
    program.close()
    return len(compared), sum(compared)


@pytest.mark.parametrize(("case", "threads"), CASES)
def test_any_schedule_gives_each_request_its_own_tokens(case: str, threads: int, opened: Callable[[str], File]) -> None:
    """`python tools/schedules.py` tries many more."""
    schedules, tokens = run_schedules(opened, case, threads, 6 if threads == 1 else 2)
    assert schedules and tokens


@pytest.fixture
def tiny_program(opened: Callable[[str], File]) -> Iterator[Program]:
    program = Program(opened("tiny"), context=CONTEXT, batch=128, threads=1, budget=1 << 28)
    yield program
    program.close()


def passes_of(program: Program, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows of every part of each pass, noted as they are computed."""
    noted: list[list[int]] = []
    step = program.step

    def noting(parts, tapped=None):
        noted.append([len(part.items) for part in parts])
        return step(parts, tapped)

    monkeypatch.setattr(program, "step", noting)
    return noted


def text(seed: int, length: int) -> list[int]:
    return np.random.RandomState(seed).randint(0, 2048, length).tolist()


def test_those_that_write_go_on_while_prompts_are_read(tiny_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new prompt begins at once, also beside a long one, and no pass is without those that write."""
    noted = passes_of(tiny_program, monkeypatch)
    batch = Batch(tiny_program)
    batch.pace.alone = 80  # 32 beside others
    monkeypatch.setattr(batch.pace, "note", lambda tokens, seconds: None)
    writing, long, short = (Asked(text(i, n), 50, None).request() for i, n in ((1, 10), (2, 300), (3, 40)))
    batch.step([writing])
    batch.step([writing, long])
    batch.step([writing, long, short])
    batch.step([writing, long, short])
    assert noted == [[10], [1, 32], [1, 16, 16], [1, 32]]
    assert (len(writing.ready), long.position, short.position) == (4, 80, 16)


def test_a_common_beginning_is_computed_once(tiny_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of requests that come together, of one that comes later, and after those that had it are gone."""
    noted, scheduler = passes_of(tiny_program, monkeypatch), Scheduler(tiny_program)
    system, group = text(1, 300), object()
    asked = [Asked([*system, *text(i, 5)], 3, i) for i in range(2, 6)]
    requests = [one.request(group) for one in asked]
    for request in requests:
        scheduler.add(request)
    found = [fetch(scheduler, request) for request in requests]
    assert sum(sum(rows) for rows in noted) < 300 + 4 * (5 + 3)
    assert [request.cached for request in requests] == [0, 300, 300, 300]
    for request in requests:
        scheduler.leave(request)
    later = Asked([*system, *text(2, 5), 7], 3, None)
    scheduler.add(request := later.request())
    fetch(scheduler, request)
    assert request.cached == 305
    with Session(tiny_program.file, context=CONTEXT, threads=1) as session:
        assert found == [one.alone(session) for one in asked]


def test_who_finds_no_pages_waits_and_the_youngest_gives_way(
    opened: Callable[[str], File], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three texts where there is room for two, then for one: the oldest ends first."""
    program = Program(opened("tiny"), context=768, batch=128, threads=1)  # three pages
    scheduler, group, ended = Scheduler(program), object(), []
    asked = [Asked(text(i, 200), 100, i) for i in range(3)]
    requests = [one.request(group) for one in asked]
    for request in requests:
        scheduler.add(request)
    found: list[list[int]] = [[], [], []]
    while left := [request for request in requests if request.open or request.ready]:
        scheduler.wait(left)
        for i, request in enumerate(requests):
            while request.ready:
                found[i].append(request.ready.popleft().token)
            if request.complete and i not in ended:
                ended.append(i)
                scheduler.leave(request)
        assert program.pool.used <= program.pool.budget
    assert ended[0] == 0
    with Session(opened("tiny"), context=768, threads=1) as session:
        assert found == [one.alone(session) for one in asked]
    scheduler.close()
    program.close()


def test_an_error_that_somebody_keeps_holds_no_pages(opened: Callable[[str], File]) -> None:
    program = Program(opened("tiny"), context=CONTEXT, batch=128, threads=1)
    program.pool.budget = program.bytes_of(100)
    scheduler = Scheduler(program)
    scheduler.add(long := Asked(text(7, 300), 3, None).request())
    with pytest.raises(MemoryLimitError):
        scheduler.next(long)
    scheduler.add(short := Asked(text(8, 30), 6, None).request())
    assert long.error is not None and len(fetch(scheduler, short)) == 6
    program.close()


def test_a_text_that_no_budget_holds(opened: Callable[[str], File]) -> None:
    program = Program(opened("tiny"), context=CONTEXT, threads=1, budget=0)
    scheduler = Scheduler(program)
    scheduler.add(request := Asked([1, 2], 3, None).request())
    with pytest.raises(MemoryLimitError):
        scheduler.next(request)
    program.close()


def test_an_error_of_one_request_is_its_own(tiny_program: Program) -> None:
    scheduler, group = Scheduler(tiny_program), object()

    def choose(logits, before):
        if len(before) > 6:
            raise KeyError("mine")
        return 5, None

    good = Asked(text(1, 30), 20, 4)
    requests = [Request(text(2, 4), 20, choose, (), group), good.request(group)]
    for request in requests:
        scheduler.add(request)
    found = fetch(scheduler, requests[1])
    assert [scheduler.next(requests[0]).token for _ in range(3)] == [5, 5, 5], "what was drawn before is there"
    with pytest.raises(KeyError, match="mine"):
        scheduler.next(requests[0])
    with Session(tiny_program.file, context=CONTEXT, threads=1) as session:
        assert found == good.alone(session)


def test_a_program_that_fails_reaches_all_who_wait(tiny_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, heard = Scheduler(tiny_program), []

    def fail(parts, tapped=None):
        raise EdgeqError("it broke")

    def work() -> None:
        scheduler.add(request := Asked(text(1, 20), 500, None).request())
        try:
            fetch(scheduler, request)
        except EdgeqError as error:
            heard.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    monkeypatch.setattr(tiny_program, "step", fail)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert heard == ["it broke"] * 4


def test_closing_reaches_all_who_wait(tiny_program: Program) -> None:
    scheduler, heard = Scheduler(tiny_program), []
    begun = threading.Barrier(4)

    def work() -> None:
        scheduler.add(request := Asked(text(1, 20), 500, None).request())
        fetch(scheduler, request, 1)
        begun.wait(20)
        try:
            fetch(scheduler, request)
        except UsageError as error:
            heard.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    scheduler.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert heard == ["the model is closed: load it again"] * 3
    assert tiny_program.pool.used == 0


def test_a_cancelled_request_ends_for_who_waits(tiny_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next pass, though many of its prompt were to come."""
    noted, scheduler = passes_of(tiny_program, monkeypatch), Scheduler(tiny_program)
    scheduler.add(request := Asked(text(1, 590), 5, None).request())
    scheduler.batch.pace.alone = 16
    monkeypatch.setattr(scheduler.batch.pace, "note", lambda tokens, seconds: None)
    step, reached = tiny_program.step, threading.Event()

    def slow(parts, tapped=None):
        result = step(parts, tapped)
        reached.set()
        time.sleep(0.01)
        return result

    monkeypatch.setattr(tiny_program, "step", slow)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(scheduler.next(request)))
    thread.start()
    assert reached.wait(20)
    scheduler.cancel(request)
    thread.join(20)
    assert found == [None] and len(noted) < 30
    scheduler.add(other := Asked(text(1, 590), 1, None).request())
    assert len(fetch(scheduler, other)) == 1 and other.cached >= 16, "what was computed of it is kept"


def test_who_does_not_fetch_is_a_little_ahead(tiny_program: Program) -> None:
    """While another one is computed; then nothing more, and no thread is left."""
    scheduler = Scheduler(tiny_program)
    scheduler.add(slow := Asked(text(1, 20), 300, None).request())
    scheduler.add(fast := Asked(text(2, 20), 100, None).request())
    fetch(scheduler, slow, 1)
    fetch(scheduler, fast)
    assert len(slow.ready) == AHEAD
    assert scheduler._driver is None or not scheduler._driver.is_alive()
    assert len(fetch(scheduler, slow)) == 299


def test_who_holds_no_request_has_none(tiny_program: Program) -> None:
    scheduler = Scheduler(tiny_program)
    scheduler.add(kept := Asked(text(1, 20), 5, None).request())
    scheduler.add(dropped := Asked(text(2, 300), 300, None).request())
    fetch(scheduler, dropped, 1)
    used = tiny_program.pool.used
    del dropped
    gc.collect()
    assert tiny_program.pool.used < used
    assert len(fetch(scheduler, kept)) == 5


def test_work_that_wants_the_model_alone_gets_it(tiny_program: Program) -> None:
    """While others write without end; where there is no room, they give way."""
    scheduler, done = Scheduler(tiny_program), threading.Event()

    def write(number: int) -> None:
        while not done.is_set():
            scheduler.add(request := Asked(text(number, 20), 50, None).request())
            fetch(scheduler, request)
            scheduler.leave(request)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    tries: list[int] = []

    def work() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise MemoryLimitError("no room")
        return len(tries)

    try:
        assert [scheduler.alone(work) for _ in range(20)] == [*range(2, 22)]
    finally:
        done.set()
    for writer in writers:
        writer.join(20)
        assert not writer.is_alive()


def test_without_a_further_thread_each_computes_its_own(tiny_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, group = Scheduler(tiny_program), object()

    class Thread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.threading, "Thread", Thread)
    requests = [Asked(text(i, 20), 5, None).request(group) for i in range(3)]
    for request in requests:
        scheduler.add(request)
    assert [len(fetch(scheduler, request)) for request in requests] == [5, 5, 5]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs alarms of POSIX")
def test_interrupts_at_any_place_leave_it_usable(tiny_program: Program) -> None:
    """Alarms raise in the main thread while it and two others write; the others' tokens are what they are alone."""
    scheduler, stop, wrong, done = Scheduler(tiny_program), threading.Event(), list[object](), [0, 0]
    draw, inside, heard = random.Random(1), [False], 0
    asked = [lambda i=i: Asked(text(i, 20), 12, i) for i in range(3)]
    with Session(tiny_program.file, context=CONTEXT, threads=1) as session:
        expected = [one().alone(session) for one in asked]

    def ring(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(2e-4, 4e-3))
        if inside[0]:
            inside[0] = False
            raise KeyboardInterrupt

    def write(i: int) -> None:
        while not stop.is_set():
            scheduler.add(request := asked[i]().request())
            if (found := fetch(scheduler, request)) != expected[i]:
                wrong.append(found)
            scheduler.leave(request)
            done[i] += 1

    others = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for other in others:
        other.start()
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1e-3)
    try:
        while heard < 60:
            request = asked[2]().request()
            try:
                inside[0] = True
                try:
                    scheduler.add(request)
                    fetch(scheduler, request)
                finally:
                    scheduler.leave(request)
                inside[0] = False
            except KeyboardInterrupt:
                heard += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        counts, deadline = list(done), time.monotonic() + 20
        while any(now <= then for now, then in zip(done, counts, strict=True)) and time.monotonic() < deadline:
            time.sleep(0.01)
        stop.set()
    for other in others:
        other.join(20)
        assert not other.is_alive()
    assert not wrong and all(now > then for now, then in zip(done, counts, strict=True)), "the others stand still"
    scheduler.add(request := asked[2]().request())
    assert fetch(scheduler, request) == expected[2]
