"""Learned position embeddings: the row of a token's position, added to its row."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    weights: int  # F32 panels [positions, columns]
    columns: int
    x: int
    x_stride: int  # bytes
    tokens: int  # how many rows, at this address
    positions: int  # theirs


@dataclass(frozen=True)
class Positions(Op):
    """x + the rows of `weight` for the tokens' positions, in place; or for what an `axis` of a grid has in their
    place, 0 their columns and 1 their rows."""

    x: Value
    weight: str
    axis: int | None = None
    kernels: ClassVar[Variants] = {"positions": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    @property
    def changes(self) -> Value:
        return self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x, most = low.buffer(out), low.shapes[self.weight][0]
        if self.axis is None:
            low.learned_positions, positions = most, low.tables.positions
        else:
            positions = low.tables.with_places(most)[self.axis]
        weights, count = low.f32(self.weight), low.count(out)
        args = Args(weights, out.width, x.address, x.stride, count, int(positions.ctypes.data))
        low.tape.add("positions", args, [], [x])


def make(variant, isa):
    """Threads share the tokens."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_f32, load_i64, store_f32

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count = load_i64(a.tokens)
        for token in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            position, row = load_i64(a.positions + 8 * token), a.x + token * a.x_stride
            source = a.weights + position // 16 * a.columns * 64 + position % 16 * 4
            for i in range(a.columns):
                store_f32(row + 4 * i, load_f32(row + 4 * i) + load_f32(source + 64 * i))

    return kernel


def reference(x: np.ndarray, weights: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The NumPy twin: x [tokens, columns], weights [all positions, columns] -> like x."""
    return x + weights[positions]
