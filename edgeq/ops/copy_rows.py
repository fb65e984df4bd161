"""Copy the rows of the tokens whose logits are asked for."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.buffers import Buffer
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Shapes, Variants
from edgeq.graph.row_tables import OUTPUTS, TOKENS
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    width: int
    out: int
    out_stride: int  # bytes
    which: int  # the rows, or 0 for the first ones
    rows: int  # how many, at this address


@dataclass(frozen=True)
class Outputs(Op):
    """Only the rows whose logits are asked for."""

    x: Value
    kernels: ClassVar[Variants] = {"copy_rows": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return self.x.width, True

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        which, count = int(low.tables.outputs.ctypes.data), low.tables.count(OUTPUTS)
        args = Args(x.address, x.stride, out.width, y.address, y.stride, which, count)
        low.head = len(low.tape.steps)
        low.tape.add("copy_rows", args, [x], [y])


def every_row(low: Lowering, x: int, x_stride: int, width: int, out: Buffer) -> Args:
    """To copy the rows of all tokens from the address `x`."""
    return Args(x, x_stride, width, out.address, out.stride, 0, low.tables.count(TOKENS))


def make(variant, isa):
    """Rows of x, padded to 16 columns."""
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import load_f32x16, store_f32x16

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count = load_i64(a.rows)
        for row in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            which = load_i64(a.which + 8 * row) if a.which != 0 else row
            source, target = a.x + which * a.x_stride, a.out + row * a.out_stride
            for i in range(0, a.width, 16):
                store_f32x16(target + 4 * i, load_f32x16(source + 4 * i))

    return kernel


def reference(x: np.ndarray, which: np.ndarray) -> np.ndarray:
    """The NumPy twin."""
    return x[which].copy()
