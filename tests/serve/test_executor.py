"""Work in threads that end with it."""

import gc
import os
import threading
import time
import weakref

import pytest
from serving import wait_until

from edgeq.serve.executor import Executor


@pytest.fixture
def two():
    executor = Executor(2)
    yield executor
    executor.close()


def test_each_piece_has_a_thread_of_its_own_which_ends(two):
    threads = {future.result(5) for future in [two.submit(threading.get_native_id) for _ in range(8)]}
    assert len(threads) == 8
    if os.path.isdir("/proc/self/task"):
        wait_until(lambda: not threads & {*map(int, os.listdir("/proc/self/task"))}, 5)


def test_pieces_begin_in_their_order_so_many_at_a_time(two):
    began, most, inside = [], [], set()

    def work(number):
        began.append(number)
        inside.add(number)
        time.sleep(0.002)
        most.append(len(inside))
        inside.discard(number)

    for future in [two.submit(lambda number=number: work(number)) for number in range(12)]:
        future.result(5)
    assert sorted(began) == list(range(12)) and all(abs(i - number) < 2 for i, number in enumerate(began))
    assert max(most) == 2


def test_an_error_is_the_futures_and_nothing_holds_it(two):
    class Held(list):
        pass

    held = Held()
    there = weakref.ref(held)

    def fail(held):
        raise ValueError("no")

    gc.disable()
    try:
        future = two.submit(lambda held=held: fail(held))
        with pytest.raises(ValueError, match="no"):
            future.result(5)
        del held, future
        wait_until(lambda: there() is None, 5)
    finally:
        gc.enable()
    assert two.submit(lambda: 5).result(5) == 5


def test_what_has_not_begun_can_be_cancelled_and_closing_waits_for_the_rest():
    executor, begun, go, said = Executor(1), threading.Event(), threading.Event(), []
    first = executor.submit(lambda: begun.set() or (go.wait(5) and said.append(1)))
    assert begun.wait(5)
    second, third = executor.submit(lambda: said.append(2)), executor.submit(lambda: said.append(3))
    assert second.cancel() and not first.cancel()
    closing = threading.Thread(target=executor.close)
    closing.start()
    wait_until(third.cancelled, 5)
    assert closing.is_alive()
    go.set()
    closing.join(5)
    assert said == [1] and first.done() and not closing.is_alive()
    with pytest.raises(RuntimeError):
        executor.submit(lambda: None)


def test_without_further_threads_one_does_what_waits(monkeypatch):
    executor, go = Executor(1), threading.Event()
    futures = [executor.submit(lambda: go.wait(5)), *[executor.submit(threading.get_native_id) for _ in range(3)]]

    def none(work, given):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("edgeq.serve.executor.start_new_thread", none)
    go.set()
    assert len({future.result(5) for future in futures[1:]}) == 1
    with pytest.raises(RuntimeError):
        executor.submit(lambda: None)
    executor.close()
