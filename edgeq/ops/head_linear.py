"""A matrix of its own for each head: latent attention's way from queries to latents, and from latents to values."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.errors import FormatError
from edgeq.graph.aligned import round_up
from edgeq.graph.lowering import ROW_TILE, Lowering
from edgeq.graph.op import Op, Shapes, Variants
from edgeq.graph.value import Value
from edgeq.kernels.layout import GROUP, SUMS_BYTES
from edgeq.ops import matmul, pack_heads


class Args(NamedTuple):
    weights: int
    rows: int  # of a head
    columns: int
    matrix_bytes: int  # of a head's matrix
    heads: int
    words: int  # or f32 rows
    sums: int  # or their stride in bytes
    words_step: int  # bytes from a head's words, or values, to the next one's
    sums_step: int
    out: int
    out_stride: int  # bytes
    out_step: int  # bytes from a head's results to the next one's
    tokens: int  # how many, at this address
    counters: int = 0  # of turns, see kernels/turns.py
    barriers: int = 0


@dataclass(frozen=True)
class HeadLinear(Op):
    """Of each of `heads` parts of x the first values times the part's own matrix: `weight` [heads * rows, columns] has
    them one after the other. Each result takes `room` places, whose last ones stay as they are if it has fewer.

    `rows` must be a multiple of 16.
    """

    x: Value
    weight: str
    heads: int
    room: int
    kernels: ClassVar[Variants] = {
        "head_linear": lambda isa: [bt.name for bt in BLOCK_TYPES.values() if not bt.per_row],
        "pack_heads": lambda isa: [""],
    }

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return self.heads * self.room, self.x.outputs

    def lower(self, low: Lowering, out: Value) -> None:
        x, y, info = low.buffer(self.x), low.buffer(out), low.tensor(self.weight)
        if low.token_scale(self.weight) is not None:
            what = f"{low.file.path}: tensor {self.weight} is {info.type}, which matrices of heads cannot be"
            raise FormatError(f"{what}: convert the model again with Q8_0")
        rows, columns = info.shape[0] // self.heads, info.shape[1]
        step = self.x.width // self.heads
        words, sums, words_step, sums_step, scratch = x.address, x.stride, 4 * step, 0, []
        if low.is_packed(self.weight):
            each = round_up(low.capacity[self.x.outputs], ROW_TILE) * columns
            words_step, sums_step = each, each // GROUP * SUMS_BYTES
            scratch = [low.scratch.take(self.heads * size) for size in (words_step, sums_step)]
            words, sums = (int(memory.ctypes.data) for memory in scratch)
            packing = pack_heads.Args(
                x=x.address,
                x_stride=x.stride,
                x_step=4 * step,
                heads=self.heads,
                width=columns,
                words=words,
                sums=sums,
                words_step=words_step,
                sums_step=sums_step,
                tokens=low.count(out),
            )
            low.tape.add("pack_heads", packing, [x], scratch)
        args = Args(
            weights=low.weights(self.weight),
            rows=rows,
            columns=columns,
            matrix_bytes=info.nbytes // self.heads,
            heads=self.heads,
            words=words,
            sums=sums,
            words_step=words_step,
            sums_step=sums_step,
            out=y.address,
            out_stride=y.stride,
            out_step=4 * self.room,
            tokens=low.count(out),
        )
        low.tape.add(f"head_linear:{info.type}", args, [x, *scratch], [y])
        for memory in scratch:
            low.scratch.release(memory)


def make(variant, isa):
    """The kernel for the block type `variant`."""
    from edgeq.kernels.multiply import make_multiply
    from edgeq.kernels.turns import crew_of, for_part
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64

    arguments, multiply, packed = words_of(Args), make_multiply(variant, isa), block_type(variant).quantized

    def kernel(args, thread, n_threads):
        a = arguments(args)
        crew = crew_of(a.counters, a.barriers, thread, n_threads)
        for head in range(a.heads):
            multiply(
                a.weights + head * a.matrix_bytes,
                a.rows,
                a.columns,
                a.words + head * a.words_step,
                a.sums + head * a.sums_step if packed else a.sums,
                a.out + head * a.out_step,
                a.out_stride,
                load_i64(a.tokens),
                0,
                0,
                for_part(crew, head),
            )

    return kernel


def reference(weights: np.ndarray, name: str, x: np.ndarray) -> np.ndarray:
    """The NumPy twin: decoded weights [heads, rows, columns], x [tokens, heads, at least columns] -> [tokens, heads,
    rows]."""
    columns = weights.shape[2]
    found = [matmul.reference(matrix, name, x[:, head, :columns]) for head, matrix in enumerate(weights)]
    return np.stack(found, axis=1)
