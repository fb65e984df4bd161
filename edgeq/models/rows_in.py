"""What a model begins with that reads rows in place of token ids."""

from typing import NamedTuple

from edgeq.models.matrix import Matrix
from edgeq.models.norms import RMSNorm
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class RowsIn(NamedTuple):
    """Rows that are given, normed by what is `before`, times `matrix`; then those of `positions` are added. In the
    checkpoint the matrix may have further `axes` in place of its columns, as that of a convolution whose steps are as
    long as its patches."""

    matrix: Matrix
    positions: Matrix | None = None
    axes: tuple[int, ...] = ()
    before: RMSNorm | None = None

    @property
    def types(self) -> None:
        """None are told apart."""

    @property
    def norm(self) -> None:
        """There is none."""

    def tensors(self, t: Tensors) -> None:
        """The norm, the matrix, the positions."""
        if self.before:
            self.before.tensors(t)
        if self.axes:
            t.unrolled(self.matrix.name, self.matrix.source, (self.matrix.rows, *self.axes))
        else:
            self.matrix.tensors(t)
        if self.positions:
            self.positions.tensors(t)

    def graph(self, g: Graph) -> Value:
        """Rows to the first layer's input."""
        x = g.rows(self.matrix.columns)
        x = self.matrix.graph(g, self.before.graph(g, x) if self.before else x)
        return g.add_positions(x, f"{self.positions.name}.weight") if self.positions else x
