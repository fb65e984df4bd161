"""The row of the position before: what RWKV's token shift mixes a row with. Of each sequence the latest row is kept."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from edgeq.graph.aligned import round_up
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.pages import Kept, RecurrentState
from edgeq.graph.row_tables import RUNS
from edgeq.graph.value import Value
from edgeq.kernels.layout import GROUP


class Args(NamedTuple):
    x: int
    x_stride: int  # bytes
    vectors: int  # of 16 values, of a row, its padding included
    kept: int  # where the latest row lies in a page: f32
    pages: int  # of each row's sequence: addresses of tables
    out: int
    out_stride: int  # bytes
    runs: int  # see layout.RUN_WORDS
    run_count: int  # at this address


@dataclass(frozen=True)
class Previous(Op):
    """x of the position before, zeros for the first one. `part` tells two of one layer apart."""

    x: Value
    layer: int
    part: str
    kernels: ClassVar[Variants] = {"previous": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        return {(self.layer, self.part): RecurrentState(4 * round_up(self.x.width, GROUP))}

    def lower(self, low: Lowering, out: Value) -> None:
        x, y, kept = low.buffer(self.x), low.buffer(out), low.kept((self.layer, self.part))
        args = Args(
            x=x.address,
            x_stride=x.stride,
            vectors=round_up(out.width, GROUP) // 16,
            kept=kept.offset,
            pages=low.pages(kept),
            out=y.address,
            out_stride=y.stride,
            runs=int(low.tables.runs.ctypes.data),
            run_count=low.tables.count(RUNS),
        )
        low.tape.add("previous", args, [x], [y, kept])


def make(variant, isa):
    """Threads share the columns, so that what is kept is written by who has read what was there."""
    from edgeq.kernels.page_table import page_of
    from edgeq.kernels.run_pages import rows_in_page, run_at
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import device, load_f32x16, store_f32x16, zero_f32x16

    arguments = words_of(Args)

    @device
    def copy(source, target, begin, stop):
        """The columns from byte `begin` to `stop`; zeros where there is no source."""
        for at in range(begin, stop, 64):
            store_f32x16(target + at, load_f32x16(source + at) if source != 0 else zero_f32x16())

    def kernel(args, thread, n_threads):
        a = arguments(args)
        begin, stop = a.vectors * thread // n_threads * 64, a.vectors * (thread + 1) // n_threads * 64
        for number in range(load_i64(a.run_count)):
            first, rows, start = run_at(a.runs, number)
            before = page_of(a.pages, first, start - 1) + a.kept if start > 0 else 0
            copy(before, a.out + first * a.out_stride, begin, stop)
            for row in range(first + 1, first + rows):
                copy(a.x + (row - 1) * a.x_stride, a.out + row * a.out_stride, begin, stop)
            done = 0
            while done < rows:
                done += rows_in_page(start + done, rows - done)
                last = a.x + (first + done - 1) * a.x_stride
                copy(last, page_of(a.pages, first, start + done - 1) + a.kept, begin, stop)

    return kernel


def reference(x: np.ndarray) -> np.ndarray:
    """The NumPy twin, from position 0 on: [tokens, width] -> [tokens, width]."""
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])
