"""Turns of a share: whoever takes them, each is computed once, and the results are the same bits."""

import threading
from typing import NamedTuple

import kernel_calls
import numpy as np
import pytest
from kernel_calls import BODIES, Packed, address, random_panels

from edgeq.graph.control import new_control, turn_counters
from edgeq.graph.tape import Tape
from edgeq.kernels.layout import BARRIER_BITS, BARRIERS, CONTROL_BYTES, TURN_SLOTS, WORKER_BYTES
from edgeq.ops import matmul

THREADS = 3
COLUMNS = 512
BODY = next(body for body in BODIES if body.native)


class Matrix:
    """A matrix times some tokens, added to what is there: a turn that is computed twice shows."""

    def __init__(self, name: str, rows: int, tokens: int):
        rng = np.random.default_rng(rows + tokens)
        panels = random_panels(rng, name, rows, COLUMNS)
        self.weights = kernel_calls.aligned(panels.nbytes)
        self.weights[:] = panels.reshape(-1).view(np.uint8)
        self.packed = Packed(BODY, rng.standard_normal((tokens, COLUMNS)).astype(np.float32))
        self.rows, self.plain = rows, name == "F16"
        self.kernel, self.control = BODY.kernel(f"matmul:{name}"), new_control(THREADS)
        self.out = np.ones((self.packed.capacity, rows), np.float32)
        packed = self.packed
        source = (address(packed.rows), 4 * COLUMNS) if self.plain else (address(packed.words), address(packed.sums))
        out = address(self.out), self.out.strides[0]
        args = matmul.Args(address(self.weights), rows, COLUMNS, *source, *out, address(packed.count), 0, 1)
        counters, barriers = turn_counters(self.control)
        self.fixed = np.array(args, np.int64)
        self.counted = np.array(args._replace(counters=counters, barriers=barriers), np.int64)

    def counter(self, thread: int) -> int:
        """The index of a thread's counter in the control block."""
        first, _ = turn_counters(self.control)
        return (first - address(self.control) + thread * WORKER_BYTES) // 8

    def expected(self) -> np.ndarray:
        """From fixed shares."""
        self.out[:] = 1
        for thread in range(THREADS):
            self.kernel(address(self.fixed), thread, THREADS)
        return self.out.copy()

    def run(self, thread: int) -> None:
        self.kernel(address(self.counted), thread, THREADS)


@pytest.fixture(params=[("Q4_K", 1), ("Q4_K", 300), ("Q6_K", 5), ("F16", 1), ("F16", 9)], ids=str)
def matrix(request: pytest.FixtureRequest) -> Matrix:
    name, tokens = request.param
    return Matrix(name, 16 * 53, tokens)  # panels that neither threads nor streams divide


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_who_comes_first_takes_all(matrix: Matrix, order: tuple[int, ...]) -> None:
    """One after the other: the first finds all shares untouched, the others find nothing to do."""
    expected = matrix.expected()
    for barriers in range(3):
        matrix.control[BARRIERS] = barriers
        matrix.out[:] = 1
        matrix.run(order[0])
        assert np.array_equal(matrix.out, expected)
        for thread in order[1:]:
            matrix.run(thread)
        assert np.array_equal(matrix.out, expected)


def test_turns_that_others_took_are_left_to_them(matrix: Matrix) -> None:
    """The first turn of each share counts as taken: exactly those outputs are missing, of whole panels."""
    expected = matrix.expected()
    matrix.control[BARRIERS] = 7
    for thread in range(THREADS):
        matrix.control[matrix.counter(thread)] = (7 << BARRIER_BITS) + 1
    matrix.out[:] = 1
    for thread in range(THREADS):
        matrix.run(thread)
    tokens = int(matrix.packed.count[0])
    done = (matrix.out[:tokens] == expected[:tokens]).reshape(tokens, -1, 16).all(axis=2)
    untouched = (matrix.out[:tokens] == 1).reshape(tokens, -1, 16).all(axis=2)
    assert np.array_equal(done, ~untouched)
    assert THREADS <= untouched.any(axis=0).sum() <= THREADS * 4


def test_threads_at_once(matrix: Matrix) -> None:
    expected = matrix.expected()
    for barriers in range(20):
        matrix.control[BARRIERS] = barriers
        matrix.out[:] = 1
        workers = [threading.Thread(target=matrix.run, args=(thread,)) for thread in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert np.array_equal(matrix.out, expected)


class Counted(NamedTuple):
    step: int
    counters: int = 0
    barriers: int = 0


def test_steps_between_two_barriers_have_counters_of_their_own() -> None:
    control = new_control(2)
    tape = Tape(control)
    source, targets = object(), [object() for _ in range(2 * TURN_SLOTS + 1)]
    for i, target in enumerate(targets):
        tape.add(f"step {i}", Counted(i), [source], [target])
    assert [i for i, barrier in enumerate(tape.barriers) if barrier] == [TURN_SLOTS, 2 * TURN_SLOTS]
    counters = [int(args[1]) for _, _, args in tape.steps]
    assert len(set(counters[:TURN_SLOTS])) == TURN_SLOTS
    assert counters[:TURN_SLOTS] == counters[TURN_SLOTS:-1] and counters[-1] == counters[0]
    first = address(control) + CONTROL_BYTES
    assert all(first < counter < first + WORKER_BYTES for counter in counters)
    assert all(int(args[2]) == address(control) + 8 * BARRIERS for _, _, args in tape.steps)
