"""Two rows as one: the values of y behind those of x."""

from dataclasses import dataclass
from typing import ClassVar

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Shapes, Variants
from edgeq.graph.row_tables import TOKENS
from edgeq.graph.value import Value
from edgeq.ops.copy_rows import Args


@dataclass(frozen=True)
class Join(Op):
    """x, then y, of each token, a new value; both are multiples of 16 wide."""

    x: Value
    y: Value
    kernels: ClassVar[Variants] = {"copy_rows": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.x, self.y

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        assert self.x.width % 16 == 0 and self.y.width % 16 == 0 and not self.x.outputs
        return self.x.width + self.y.width, False

    def lower(self, low: Lowering, out: Value) -> None:
        whole, first = low.buffer(out), 0
        for part in self.reads:
            x, at = low.buffer(part), whole.address + 4 * first
            args = Args(x.address, x.stride, part.width, at, whole.stride, 0, low.tables.count(TOKENS))
            low.tape.add("copy_rows", args, [x], [whole])
            first += part.width
