"""The team of threads: interrupted at any moment, asleep when idle, gone when closed."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgeq.container.reader import File
from edgeq.runtime.session import Session

# Alarms raise at random moments of an evaluation that begins when the workers are parked and must be woken. From 10 us
# to 10 ms, each magnitude as likely: how long the evaluation takes on a busy machine cannot be known.
INTERRUPTED = """
import random, signal, sys, time, traceback
import numpy as np
from edgeq.container.reader import open_file
from edgeq.runtime.session import Session

class Alarm(Exception):
    pass

def ring(*_):
    raise Alarm

session = Session(open_file(sys.argv[1]), context=16, threads=int(sys.argv[2]))
one, two = [7], [300]
expected = {}
for tokens in (one, two):
    expected[tokens[0]] = session.eval(tokens)
    session.rewind(0)
signal.signal(signal.SIGALRM, ring)
generator = random.Random(1)
inside = 0
rounds = 0
while rounds < 80 or inside == 0 and rounds < 1000:
    rounds += 1
    session.rewind(0)
    time.sleep(0.01)
    try:
        signal.setitimer(signal.ITIMER_REAL, 10 ** generator.uniform(-5, -2))
        session.eval(one)
        while True:
            time.sleep(1)
    except Alarm as alarm:
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(alarm.__traceback__)]
        inside += any(file.endswith("workers.py") for file in files)
    for tokens in (two, one, two):
        session.rewind(0)
        assert np.array_equal(session.eval(tokens), expected[tokens[0]]), "the team is out of step"
session.close()
print("interrupted within the team:", inside)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("threads", [2, 3])
def test_interrupts(tiny: Callable[[str], File], threads: int) -> None:
    command = [sys.executable, "-c", INTERRUPTED, tiny("Q4_K_M").path, str(threads)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split(":")[1]) > 0, "no alarm came while the team ran: the test has shown nothing"


def test_an_interrupt_while_workers_are_woken(tiny: Callable[[str], File], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tightest moment: the job is announced, the worker not yet woken."""
    with Session(tiny("Q4_K_M"), context=16, threads=2) as session:
        expected = session.eval([7])
        other = session.eval([300])
        for _ in range(5):
            time.sleep(0.1)  # the worker parks
            session.rewind(0)
            with monkeypatch.context() as patch:
                workers = session.team._workers
                patch.setattr(workers, "wake", [None, InterruptOnce(workers.wake[1])])
                with pytest.raises(KeyboardInterrupt):
                    session.eval([9])
            session.rewind(0)
            assert np.array_equal(session.eval([7]), expected)
            assert np.array_equal(session.eval([300]), other)


class InterruptOnce:
    """A worker's lock whose first release is interrupted."""

    def __init__(self, lock: threading.Lock):
        self.lock, self.interrupted = lock, False

    def release(self) -> None:
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        self.lock.release()


def test_idle_workers_use_no_processor(tiny: Callable[[str], File]) -> None:
    with Session(tiny("Q4_K_M"), context=32, threads=4) as session:
        session.eval([7])
        time.sleep(0.5)  # spinning, then asleep, then parked; longer where many processes share the cores
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05
        session.eval([8])
        assert session.position == 2


def worker_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("edgeq-")]


def test_closing_stops_the_threads(tiny: Callable[[str], File]) -> None:
    gc.collect()
    already = len(worker_threads())
    for i in range(30):
        session = Session(tiny("Q4_K_M"), context=16, threads=3)
        assert len(worker_threads()) == already + 2
        if i % 3:
            session.eval([i + 1])
        if i % 2:
            session.close()
        else:
            del session  # forgotten without a close
            gc.collect()
        assert len(worker_threads()) == already


def test_more_threads_than_cores_or_rows(tiny: Callable[[str], File]) -> None:
    with Session(tiny("Q4_K_M"), context=16, threads=1) as session:
        expected = session.eval([7, 8, 9])
    with Session(tiny("Q4_K_M"), context=16, threads=17) as session:
        assert np.array_equal(session.eval([7, 8, 9]), expected)


def logits_of(session: Session) -> np.ndarray:
    session.rewind(0)
    return session.eval([7, 8, 9])


def test_sessions_share_the_threads(tiny: Callable[[str], File]) -> None:
    """Of the largest team; a smaller one uses the first of them, and they stay until the last session is closed."""
    gc.collect()
    already = len(worker_threads())
    sessions = [Session(tiny("Q4_K_M"), context=16, threads=threads) for threads in (2, 3, 1, 2)]
    assert len(worker_threads()) == already + 2
    expected = logits_of(sessions[0])
    for turn in range(60):
        assert np.array_equal(logits_of(sessions[turn * 7 % 4]), expected)
    time.sleep(0.05)  # some are parked, some are not
    for turn in range(60):
        assert np.array_equal(logits_of(sessions[turn * 5 % 4]), expected)
    sessions.append(Session(tiny("Q4_K_M"), context=16, threads=5))
    for turn in range(60):
        assert np.array_equal(logits_of(sessions[turn * 3 % 5]), expected)
    while sessions:
        assert len(worker_threads()) == already + 4
        sessions.pop(0).close()
        assert all(np.array_equal(logits_of(session), expected) for session in sessions)
    assert len(worker_threads()) == already


def test_sessions_of_several_threads_take_turns(tiny: Callable[[str], File]) -> None:
    with Session(tiny("Q4_K_M"), context=16, threads=2) as session:
        expected = logits_of(session)
    wrong: list[object] = []

    def work(threads: int) -> None:
        try:
            with Session(tiny("Q4_K_M"), context=16, threads=threads) as session:
                for _ in range(40):
                    assert np.array_equal(logits_of(session), expected)
        except BaseException as error:
            wrong.append(error)

    running = [threading.Thread(target=work, args=(threads,)) for threads in (1, 2, 3, 2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in running)


FORKED = """
import os, sys
import numpy as np
from edgeq.container.reader import open_file
from edgeq.errors import UsageError
from edgeq.runtime.session import Session

file = open_file(sys.argv[1])
session = Session(file, context=16, threads=2)
expected = session.eval([7])
child = os.fork()
if not child:
    try:
        session.eval([8])
    except UsageError as error:
        assert "before this process forked" in str(error)
        with Session(file, context=16, threads=3) as own:
            os._exit(0 if np.array_equal(own.eval([7]), expected) else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
session.rewind(0)
assert np.array_equal(session.eval([7]), expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_has_threads_of_its_own(tiny: Callable[[str], File]) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED, tiny("Q4_K_M").path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
