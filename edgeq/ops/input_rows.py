"""Rows that a caller gives in place of token ids: of a vision tower, of another model, of soft prompts, or what a part
of a model begins with."""

from dataclasses import dataclass

import numpy as np

from edgeq.graph.aligned import aligned, round_up
from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Shapes
from edgeq.graph.value import Value
from edgeq.kernels.layout import GROUP
from edgeq.ops.copy_rows import every_row


@dataclass(frozen=True)
class InputRows(Op):
    """The rows of `Plan.rows`, where a graph would look up embeddings, or run the layers before."""

    width: int

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        return self.width, False

    def lower(self, low: Lowering, out: Value) -> None:
        y, width = low.buffer(out), round_up(self.width, GROUP)
        memory = aligned(low.capacity[False] * width * 4).view(np.float32).reshape(-1, width)
        low.rows, low.scratch.nbytes = memory[:, : self.width], low.scratch.nbytes + memory.nbytes
        low.tape.add("copy_rows", every_row(low, int(memory.ctypes.data), memory.strides[0], out.width, y), [], [y])
