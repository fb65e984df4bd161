"""The rows of a small table for the types of tokens (which of two texts they are of), added to their rows: the kernel
of positions, led by another number of each row."""

from dataclasses import dataclass

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op
from edgeq.graph.value import Value
from edgeq.ops.positions import Args


@dataclass(frozen=True)
class TokenTypes(Op):
    """x + the rows of `weight` for the tokens' types, in place."""

    x: Value
    weight: str

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    @property
    def changes(self) -> Value:
        return self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x, types = low.buffer(out), low.tables.with_types()
        args = Args(low.f32(self.weight), out.width, x.address, x.stride, low.count(out), int(types.ctypes.data))
        low.tape.add("positions", args, [], [x])
