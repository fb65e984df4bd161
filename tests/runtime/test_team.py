"""The team of threads: interrupted at any moment, asleep when idle, gone when closed."""

import gc
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
        inside += any(file.endswith("team.py") for file in files)
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
                patch.setattr(session.team, "_wake", [None, InterruptOnce(session.team._wake[1])])
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


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("edgeq-")]


def test_closing_stops_the_threads(tiny: Callable[[str], File]) -> None:
    gc.collect()
    already = len(workers())
    for i in range(30):
        session = Session(tiny("Q4_K_M"), context=16, threads=3)
        assert len(workers()) == already + 2
        if i % 3:
            session.eval([i + 1])
        if i % 2:
            session.close()
        else:
            del session  # forgotten without a close
            gc.collect()
        assert len(workers()) == already


def test_more_threads_than_cores_or_rows(tiny: Callable[[str], File]) -> None:
    with Session(tiny("Q4_K_M"), context=16, threads=1) as session:
        expected = session.eval([7, 8, 9])
    with Session(tiny("Q4_K_M"), context=16, threads=17) as session:
        assert np.array_equal(session.eval([7, 8, 9]), expected)
