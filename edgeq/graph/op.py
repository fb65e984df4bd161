"""What an operation promises: its values, its shape, its memory, the steps that it becomes and the kernels of these.

An operation is one file of `ops/` and a row of the table there. Imports neither Numba nor llvmlite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Concatenate, ParamSpec, cast

from edgeq.graph.value import Value

if TYPE_CHECKING:
    from edgeq.graph.lowering import Lowering
    from edgeq.graph.pages import Kept
    from edgeq.simd.isa import Isa

P = ParamSpec("P")
Shapes = Mapping[str, tuple[int, ...]]  # of every tensor of the file, matrices as [rows, columns]
Variants = Mapping[str, Callable[["Isa"], Sequence[str]]]  # of every family of kernels, for a body


@dataclass(frozen=True)
class Op(ABC):
    """An operation: a frozen dataclass whose fields are what a model says of it.

    Its kernels take argument blocks, NamedTuples of int64 words, which `lower` makes and the kernel loads by the same
    names (`simd/argument_words.py`): addresses, unless a comment says otherwise; 0 where there is nothing.
    """

    kernels: ClassVar[Variants] = {}  # what it may ask for, for any model

    @property
    def packs(self) -> bool:
        """Whether its kernel can also write the result as packed int8 activations, and leave out the f32 rows."""
        return False

    @property
    @abstractmethod
    def reads(self) -> tuple[Value, ...]:
        """Values that it reads, but for the one that it changes in place."""

    @property
    def changes(self) -> Value | None:
        """The value that it changes in place, which is its result; None if it gives a new one."""
        return None

    def shape(self, shapes: Shapes) -> tuple[int, bool]:
        """Width of a new result, and whether it is of output tokens only: by default like what is read first."""
        return self.reads[0].width, self.reads[0].outputs

    def packed_reads(self, is_packed: Callable[[str], bool]) -> tuple[Value, ...]:
        """Those of `reads` that it takes as packed int8 activations; `is_packed` tells whether a matrix wants that."""
        return ()

    def state(self, low: Lowering) -> dict[Hashable, Kept]:
        """What it keeps of earlier tokens, by the number of its layer, or by more than that where others of the layer
        keep something, too."""
        return {}

    @abstractmethod
    def lower(self, low: Lowering, out: Value) -> None:
        """Add its steps to `low.tape`; `out` is its result."""


@dataclass(frozen=True)
class Node:
    """An operation in a graph, and its result."""

    op: Op
    output: Value

    @property
    def values(self) -> tuple[Value, ...]:
        """Every value that it touches, once each."""
        return tuple(dict.fromkeys((*self.op.reads, self.output)))


class Recorder:
    """A graph as a list of operations on values. `shapes` gives the shape of every tensor."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.nodes: list[Node] = []
        self._values = 0

    def value(self, width: int, outputs: bool = False) -> Value:
        """A new one."""
        self._values += 1
        return Value(self._values - 1, width, outputs)

    def record(self, op: Op) -> Value:
        """Add an operation; its result."""
        output = op.changes or self.value(*op.shape(self.shapes))
        self.nodes.append(Node(op, output))
        return output


SAID: list[type[Op]] = []  # every operation that a model can say


def says(op: Callable[P, Op]) -> Callable[Concatenate[Recorder, P], Value]:
    """The method by which a model says `op`, with the parameters of its class."""

    def method(graph: Recorder, /, *args: P.args, **kwargs: P.kwargs) -> Value:
        return graph.record(op(*args, **kwargs))

    method.__doc__ = op.__doc__
    SAID.append(cast(type[Op], op))
    return method
