"""A matrix times the tokens' activations; the arithmetic is in kernels/multiply.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.blocks.activations import quantized, quantized_rows
from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Shapes, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    weights: int
    rows: int
    columns: int
    words: int  # or f32 rows
    sums: int  # or their stride in bytes
    out: int
    out_stride: int  # bytes
    tokens: int  # how many, at this address
    bias: int  # or 0
    accumulate: int  # 1 to add to `out` instead of writing it
    counters: int = 0  # of turns, see kernels/turns.py
    barriers: int = 0


@dataclass(frozen=True)
class Linear(Op):
    """weight @ x (+ bias); with `add_to`, added to that value in place, which is returned."""

    x: Value
    weight: str
    bias: str | None = None
    add_to: Value | None = None
    kernels: ClassVar[Variants] = {"matmul": lambda isa: list(BLOCK_TYPES)}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    @property
    def changes(self) -> Value | None:
        return self.add_to

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return shapes[self.weight][0], self.x.outputs

    def packed_reads(self, is_packed: Callable[[str], bool]) -> tuple[Value, ...]:
        return (self.x,) if is_packed(self.weight) else ()

    def lower(self, low: Lowering, out: Value) -> None:
        x, y, info = low.buffer(self.x), low.buffer(out), low.tensor(self.weight)
        words, sums = low.activations(x, self.weight)
        args = Args(
            weights=low.weights(self.weight),
            rows=info.shape[0],
            columns=info.shape[1],
            words=words,
            sums=sums,
            out=y.address,
            out_stride=y.stride,
            tokens=low.count(out),
            bias=low.vector(self.bias),
            accumulate=int(self.add_to is not None),
        )
        low.tape.add(f"matmul:{info.type}", args, [x], [y])


def make(variant, isa):
    """The kernel for the block type `variant`."""
    from edgeq.kernels.multiply import make_multiply
    from edgeq.kernels.turns import crew_of
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64

    arguments, multiply = words_of(Args), make_multiply(variant, isa)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        multiply(
            a.weights,
            a.rows,
            a.columns,
            a.words,
            a.sums,
            a.out,
            a.out_stride,
            load_i64(a.tokens),
            a.bias,
            a.accumulate,
            crew_of(a.counters, a.barriers, thread, n_threads),
        )

    return kernel


def reference(
    weights: np.ndarray,
    name: str,
    x: np.ndarray,
    bias: np.ndarray | None = None,
    add_to: np.ndarray | None = None,
    scale: float = 0.0,
) -> np.ndarray:
    """The NumPy twin: [tokens, columns] f32 activations x decoded weights [rows, columns] -> [tokens, rows] f32.

    `scale`: that of all activations, where the type's rows have one and it is known beforehand.
    Quantizes the activations as the kernels do, and follows their order of operations up to f32 rounding.
    """
    if not block_type(name).quantized:
        result = x.astype(np.float64) @ weights.astype(np.float64).T
    elif block_type(name).per_row:
        codes_, scales = quantized_rows(x, scale)
        rounded = codes_.astype(np.float64) * scales.astype(np.float64)[:, None]
        result = rounded @ weights.astype(np.float64).T
    else:
        codes_, scales = quantized(x)
        rounded = codes_.astype(np.float64) * np.repeat(scales.astype(np.float64), 32, axis=1)
        result = rounded @ weights.astype(np.float64).T
    if bias is not None:
        result = result + bias
    if add_to is not None:
        result = result + add_to
    return result.astype(np.float32)
