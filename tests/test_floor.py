"""Who waits for whom: by threads that say when they are where."""

import random
import signal
import threading
import time
import weakref

import pytest

from edgeq import floor as module
from edgeq.floor import Floor


class Order:
    """Speakers in threads of their own, and the order in which their steps were done."""

    def __init__(self) -> None:
        self.floor, self.done, self.threads = Floor(), [], []

    def step(self, name, caller=None):
        self.floor.step(name, caller or name, lambda: self.done.append(name))

    def later(self, name, waiting):
        """`name` speaks in another thread; returns when `waiting` speakers queue."""
        thread = threading.Thread(target=lambda: (self.step(name), self.floor.leave(name)))
        thread.start()
        self.threads.append(thread)
        deadline = time.monotonic() + 10
        while len(self.floor._waiting) < waiting:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def join(self):
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def order(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)
    return Order()


def test_a_speaker_keeps_the_floor_until_it_leaves(order):
    order.step("a")
    order.later("b", 1)
    order.later("c", 2)
    order.step("a")
    assert order.done == ["a", "a"]
    order.floor.leave("a")
    order.join()
    assert order.done == ["a", "a", "b", "c"], "in the order in which they came"
    order.step("d")
    assert order.done[-1] == "d"


def test_a_caller_does_not_wait_for_itself(order):
    order.step("a", caller="me")
    order.step("b", caller="me")
    order.step("a", caller="me")
    assert order.done == ["a", "b", "a"]
    order.floor.leave("b")
    order.later("c", 1)
    order.floor.leave("a")
    order.join()


def test_a_caller_that_asks_for_another_lets_those_who_wait_go_first(order):
    order.step("a", caller="me")
    order.later("b", 1)
    order.step("c", caller="me")
    order.join()
    assert order.done == ["a", "b", "c"]


def test_who_is_gone_does_not_wait(order):
    order.step("a")
    order.later("b", 1)
    order.floor._waiting.appendleft(weakref.ref(module._Ticket()))  # an interrupt ended its holder's wait
    order.floor.leave("a")
    order.join()
    assert order.done == ["a", "b"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs alarms of POSIX")
def test_interrupts_at_any_place_leave_it_usable():
    """Alarms raise in the main thread while it and two others take turns; whoever is hit tries again."""
    floor, stop, done = Floor(), threading.Event(), [0, 0]
    draw, inside, heard = random.Random(1), [False], 0

    def ring(*_):
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(2e-5, 4e-4))
        if inside[0]:
            inside[0] = False
            raise KeyboardInterrupt

    def speak(i):
        while not stop.is_set():
            speaker = object()
            floor.step(speaker, i, lambda: None)
            done[i] += 1
            floor.leave(speaker)

    others = [threading.Thread(target=speak, args=(i,)) for i in range(2)]
    for other in others:
        other.start()
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    try:
        while heard < 300:
            speaker = object()
            try:
                inside[0] = True
                try:
                    floor.step(speaker, "main", lambda: None)
                finally:
                    floor.leave(speaker)
                inside[0] = False
            except KeyboardInterrupt:
                heard += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    counts = list(done)
    deadline = time.monotonic() + 20
    while any(now <= then for now, then in zip(done, counts, strict=True)):
        assert time.monotonic() < deadline, "the others stand still"
        time.sleep(0.01)
    stop.set()
    for other in others:
        other.join(10)
        assert not other.is_alive()


def test_a_speaker_that_pauses_lets_others_go_first(order, monkeypatch):
    order.step("a")
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    order.step("b", caller="b")
    assert order.done == ["a", "b"]


def test_a_long_step_is_no_pause(order, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)

    def slowly():
        order.later("b", 1)
        time.sleep(0.1)
        order.done.append("a")

    order.floor.step("a", "a", slowly)
    order.floor.leave("a")
    order.join()
    assert order.done == ["a", "b"]


def test_a_step_that_fails_lets_the_next_one_in(order):
    with pytest.raises(KeyError):
        order.floor.step("a", "a", lambda: {}["x"])
    order.floor.leave("a")
    order.step("b")
    assert order.done == ["b"]
