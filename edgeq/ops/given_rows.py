"""Rows that a caller gives in place of some of a text's tokens, as those of images."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    given: int  # int64 of each row: the address of f32 [width], or 0 for a token
    width: int
    x: int
    x_stride: int  # bytes
    rows: int  # how many, at this address


@dataclass(frozen=True)
class GivenRows(Op):
    """x with the rows that `RowTables.given` names in place of its own, in place."""

    x: Value
    kernels: ClassVar[Variants] = {"given_rows": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    @property
    def changes(self) -> Value:
        return self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x, given = low.buffer(out), low.tables.with_given()
        args = Args(int(given.ctypes.data), out.width, x.address, x.stride, low.count(out))
        low.tape.add("given_rows", args, [], [x])


def make(variant, isa):
    """Threads share the rows."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_f32, load_i64, store_f32

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count = load_i64(a.rows)
        for row in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            source, target = load_i64(a.given + 8 * row), a.x + row * a.x_stride
            if source != 0:
                for i in range(a.width):
                    store_f32(target + 4 * i, load_f32(source + 4 * i))

    return kernel


def reference(x: np.ndarray, given: list[np.ndarray | None]) -> np.ndarray:
    """The NumPy twin: x [rows, width], and of each row what is given in its place, f32 [width], or None."""
    return np.array([row if own is None else own for row, own in zip(x, given, strict=True)], np.float32)
