"""Work in threads that end with it."""

import gc
import os
import threading
import time
import weakref

import pytest
from serving import wait_until

from edgeq.serve import executor
from edgeq.serve.executor import Executor


@pytest.fixture
def two():
    made = Executor(2)
    yield made
    made.close()


def test_each_piece_has_a_thread_of_its_own_which_ends(two):
    threads = {future.result(5) for future in [two.submit(threading.get_native_id) for _ in range(8)]}
    assert len(threads) == 8
    if os.path.isdir("/proc/self/task"):
        wait_until(lambda: not threads & {*map(int, os.listdir("/proc/self/task"))}, 5)


def test_pieces_begin_in_their_order():
    began, one = [], Executor(1)
    for future in [one.submit(lambda number=number: began.append(number)) for number in range(12)]:
        future.result(5)
    one.close()
    assert began == list(range(12))


def test_so_many_are_done_at_a_time(two):
    inside, most = set(), []

    def work(number):
        inside.add(number)
        time.sleep(0.002)
        most.append(len(inside))
        inside.discard(number)

    both = threading.Barrier(2)  # two are inside at once, whatever else the machine does
    for future in [two.submit(both.wait) for _ in range(2)]:
        future.result(5)
    for future in [two.submit(lambda number=number: work(number)) for number in range(12)]:
        future.result(5)
    assert max(most) <= 2


def test_where_no_thread_can_begin_one_that_is_there_does_it(two, monkeypatch):
    go = threading.Event()
    first = two.submit(lambda: go.wait(5))

    def refuse(*given):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(executor, "start_new_thread", refuse)
    second, third = two.submit(threading.get_native_id), two.submit(threading.get_native_id)
    go.set()
    assert first.result(5) and second.result(5) == third.result(5)
    two.finish()
    with pytest.raises(RuntimeError, match="can't start"):
        two.submit(int)
    monkeypatch.undo()
    assert two.submit(int).result(5) == 0


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
