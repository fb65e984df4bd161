"""What a model begins with that reads rows in place of token ids."""

from typing import NamedTuple, Protocol

from edgeq.models.matrix import Matrix
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Before(Protocol):
    """What is done to rows first, as a norm."""

    def tensors(self, t: Tensors) -> None:
        """Add what it needs."""

    def graph(self, g: Graph, x: Value) -> Value:
        """Of x."""


AXES = ("position_embd_x", "position_embd_y")  # of columns, and of rows


class RowsIn(NamedTuple):
    """Rows that are given, normed by what is `before`, times `matrix`; then those of `positions` are added; `then` an
    `activation` and a further matrix. In the checkpoint the matrix may have further `axes` in place of its columns, as
    that of a convolution whose steps are as long as its patches, or have so many `channels`, see Part."""

    matrix: Matrix
    positions: Matrix | None = None
    axes: tuple[int, ...] = ()
    before: Before | None = None
    channels: int = 1
    then: Matrix | None = None
    activation: str = ""

    @property
    def width(self) -> int:
        """Values of a row in the end."""
        return (self.then or self.matrix).rows

    @property
    def types(self) -> None:
        """None are told apart."""

    @property
    def norm(self) -> None:
        """There is none."""

    def tensors(self, t: Tensors) -> None:
        """The norm, the matrices, the positions."""
        if self.before:
            self.before.tensors(t)
        if self.axes:
            t.unrolled(self.matrix.name, self.matrix.source, (self.matrix.rows, *self.axes))
        elif self.channels > 1:
            m = self.matrix
            t.of_pixels(m.name, m.source, m.rows, m.columns, self.channels)
            t.vector(f"{m.name}.bias", f"{m.source}.bias", m.rows)
        else:
            self.matrix.tensors(t)
        for part in (self.positions, self.then):
            if part:
                part.tensors(t)

    def graph(self, g: Graph) -> Value:
        """Rows to the first layer's input."""
        x = g.rows(self.matrix.columns)
        x = self.matrix.graph(g, self.before.graph(g, x) if self.before else x)
        x = g.add_positions(x, f"{self.positions.name}.weight") if self.positions else x
        return self.then.graph(g, g.activation(x, self.activation)) if self.then else x


class PatchesIn(NamedTuple):
    """Patches of an image, which lie in a grid, times `matrix`; then what is learned of each one's column is added, and
    what is learned of its row.

    matrix: of a patch's values; in the checkpoint these come pixel by pixel, each of so many `channels`
    table:  the checkpoint's tensor of that `shape`, of which the first `most` columns and rows are used
    """

    matrix: Matrix
    table: str
    shape: tuple[int, int, int]
    most: int
    channels: int

    @property
    def types(self) -> None:
        """None are told apart."""

    @property
    def norm(self) -> None:
        """There is none."""

    def tensors(self, t: Tensors) -> None:
        """The matrix, the positions."""
        m = self.matrix
        t.of_pixels(m.name, m.source, m.rows, m.columns, self.channels)
        for axis, name in enumerate(AXES):
            t.plane(name, self.table, self.shape, axis, self.most)

    def graph(self, g: Graph) -> Value:
        """Patches to the first layer's input."""
        x = self.matrix.graph(g, g.rows(self.matrix.columns))
        for axis, name in enumerate(AXES):
            x = g.add_positions(x, f"{name}.weight", axis)
        return x
