"""Rows of the embedding matrix for the input tokens, dequantized from its panels."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.blocks.table import BLOCK_TYPES
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Shapes, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    weights: int
    columns: int
    ids: int  # int64
    out: int
    out_stride: int  # bytes
    tokens: int  # how many, at this address
    rows: int  # of the table


@dataclass(frozen=True)
class Embedding(Op):
    """Rows of `weight` for the input tokens, its first one for those that it has none for."""

    weight: str
    kernels: ClassVar[Variants] = {"embedding": lambda isa: list(BLOCK_TYPES)}

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return shapes[self.weight][1], False

    def lower(self, low: Lowering, out: Value) -> None:
        info, y = low.tensor(self.weight), low.buffer(out)
        ids = int(low.tables.tokens.ctypes.data)
        args = Args(low.weights(self.weight), info.shape[1], ids, y.address, y.stride, low.count(out), info.shape[0])
        low.tape.add(f"embedding:{info.type}", args, [], [y])


def make(variant, isa):
    """`variant` is the matrix's block type."""
    from edgeq.kernels.rows import make_row
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64, store_f32

    arguments, row = words_of(Args), make_row(variant, isa)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        count = load_i64(a.tokens)
        for token in range(count * thread // n_threads, count * (thread + 1) // n_threads):
            target = a.out + token * a.out_stride
            token_id = load_i64(a.ids + 8 * token)
            row(a.weights, a.columns, token_id if token_id < a.rows else 0, target)
            for at in range(4 * a.columns, a.out_stride, 4):  # what matrices that added to this row left in its padding
                store_f32(target + at, np.float32(0.0))

    return kernel


def reference(weights: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The NumPy twin: decoded weights [rows, columns], ids [tokens] -> [tokens, columns] f32."""
    return weights[np.where(ids < len(weights), ids, 0)].astype(np.float32)
