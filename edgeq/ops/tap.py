"""Keep the f32 rows that matrices read, so that calibration can look at them after each pass."""

from dataclasses import dataclass

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op
from edgeq.graph.row_tables import OUTPUTS
from edgeq.graph.value import Value
from edgeq.ops.copy_rows import every_row

ADDED_TO = "+"  # after a matrix' name: what its result is added to, in place of what it reads


@dataclass(frozen=True)
class Tap(Op):
    """A copy of x that nothing else writes; `names` are the matrices that read x. Put in by passes.py."""

    x: Value
    names: tuple[str, ...]

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        args = every_row(low, x.address, x.stride, out.width, y)
        if out.outputs:
            args = args._replace(rows=low.tables.count(OUTPUTS))
        low.tape.add("copy_rows", args, [x], [y])
        assert isinstance(y.rows, np.ndarray)
        for name in self.names:
            low.taps[name] = y.rows[:, : out.width], out.outputs
