"""Who waits for whom: by threads that say when they are where."""

import threading
import time

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
        while len(self.floor._waiting) < waiting:
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
