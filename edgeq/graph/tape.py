"""The tape that a pass walks: kernels and their argument blocks, and a barrier only where data needs one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edgeq.graph.aligned import aligned
from edgeq.graph.buffers import Buffer
from edgeq.graph.control import turn_counters
from edgeq.kernels.layout import STEP_WORDS, TURN_SLOTS
from edgeq.toolchain.library import Kernel


class Tape:
    """Steps in their order. Memory is anything that `add` can tell apart: buffers, arrays, caches.

    control: of the team that will walk it, where threads count the turns that they take (kernels/turns.py)
    """

    def __init__(self, control: np.ndarray) -> None:
        self._control = control
        self._counters = 0  # in use since the last barrier
        self.steps: list[tuple[str, NamedTuple, np.ndarray]] = []
        self.barriers: list[bool] = []  # whether one goes before the step
        self._read: set[int] = set()  # since the last barrier
        self._written: set[int] = set()

    def add(self, kernel: str, args: NamedTuple, reads: Sequence[object], writes: Sequence[object]) -> None:
        """Add a step; a barrier goes before it if it touches what a step since the last barrier wrote, or overwrites
        what one reads. Arguments with words `counters` and `barriers` are told where the step counts its turns."""
        read, written = {id(memory) for memory in _pieces(reads)}, {id(memory) for memory in _pieces(writes)}
        counts_turns = "counters" in args._fields
        barrier = bool(self._written & (read | written) or self._read & written)
        barrier |= counts_turns and self._counters == TURN_SLOTS
        if barrier:
            self._read, self._written, self._counters = set(), set(), 0
        if counts_turns:
            counters, barriers = turn_counters(self._control, self._counters)
            args = args._replace(counters=counters, barriers=barriers)
            self._counters += 1
        self._read |= read
        self._written |= written
        self.barriers.append(barrier)
        self.steps.append((kernel, args, np.array(args, dtype=np.int64)))

    @property
    def kernels(self) -> list[str]:
        """The name of every step's."""
        return [name for name, _, _ in self.steps]

    def words(self, kernels: Mapping[str, Kernel]) -> np.ndarray:
        """As the team reads it: int64, STEP_WORDS per step. It points to the steps' argument blocks."""
        after = [*self.barriers[1:], True]  # a barrier before a step follows the one before it
        tape = aligned(len(self.steps) * STEP_WORDS * 8).view(np.int64)
        for i, ((name, _, args), barrier) in enumerate(zip(self.steps, after, strict=True)):
            tape[STEP_WORDS * i :][:STEP_WORDS] = kernels[name].address, args.ctypes.data, barrier
        return tape


def _pieces(memory: Sequence[object]) -> list[object]:
    """The allocations behind buffers: pieces of recycled memory compare as the allocation they came from."""
    pieces: list[object] = []
    for item in memory:
        parts = item.pieces if isinstance(item, Buffer) else [item]
        pieces += [_allocation(part) for part in parts if part is not None]
    return pieces


def _allocation(memory: object) -> object:
    """What owns an array's memory; anything else is its own owner."""
    owner = memory
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return owner
