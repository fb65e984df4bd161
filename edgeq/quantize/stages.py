"""Runs a model stage by stage, and shows what its matrices read on the way.

Stage 0 is the embedding, 1 to n are the layers, n + 1 is the head.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32
from edgeq.container.reader import File
from edgeq.models import Architecture
from edgeq.ops import Graph
from edgeq.ops.matmul import Linear
from edgeq.ops.tap import ADDED_TO
from edgeq.runtime.session import Session

AT_ONCE = 2048  # tokens whose products are summed in f32

F64 = npt.NDArray[np.float64]
Rows = list[F32]  # of each sequence, [tokens, width]


@dataclass(frozen=True)
class Reading:
    """Matrices that read the same rows; `adding` are those whose result is added to the residual stream."""

    names: tuple[str, ...]
    adding: tuple[str, ...]

    @property
    def taps(self) -> list[str]:
        """What is to be tapped for them."""
        return [self.names[0], *(f"{name}{ADDED_TO}" for name in self.adding)]


def readings(model: Architecture, shapes: Mapping[str, tuple[int, ...]], stages: range) -> list[Reading]:
    """The matrices of linear layers in some stages of a model, in the order in which they run."""
    graph = Graph(shapes)
    model.graph(graph, stages)
    found: list[list[Linear]] = []
    latest: dict[int, list[Linear]] = {}  # by index of the value that is read, until that changes
    for node in graph.nodes:
        if isinstance(node.op, Linear):
            if node.op.x.index not in latest:
                found.append(latest.setdefault(node.op.x.index, []))
            latest[node.op.x.index].append(node.op)
        latest.pop(node.output.index, None)
    return [
        Reading(tuple(op.weight for op in ops), tuple(op.weight for op in ops if op.add_to is not None))
        for ops in found
    ]


def run(
    file: File,
    stages: range,
    items: Sequence[npt.NDArray[Any]],
    threads: int,
    seen: dict[str, Rows] | None = None,
    **options: Any,
) -> Rows:
    """What `stages` of a model make of each sequence of token ids, or of rows that the stage before made.

    `seen` are lists by name of tap, to which is added what that shows; `options` are a session's.
    """
    taps: Collection[str] = seen or ()
    context = max(map(len, items))

    def tapped(name: str, rows: F32) -> None:
        assert seen is not None
        seen[name].append(rows.copy())

    with Session(
        file,
        context=context,
        batch=context,
        threads=threads,
        kv="f16",
        stages=stages,
        taps=taps,
        force=True,
        **options,
    ) as session:
        found = []
        for one in items:
            session.rewind(0)
            found.append(session.eval(one, all_logits=True, tapped=tapped if taps else None))
    return found


def moment(one: Rows, other: Rows) -> F64:
    """E[x y^T] of rows x and y, f64: sums of AT_ONCE tokens in f32, of these in f64, always in the same order."""
    total = np.zeros((one[0].shape[1], other[0].shape[1]))
    for part in _parts(one):
        x = np.concatenate(one[part])
        y = x if other is one else np.concatenate(other[part])  # of a matrix with itself NumPy computes half
        total += x.T @ y
    return total / sum(map(len, one))


def _parts(rows: Rows) -> Iterator[slice]:
    """Runs of sequences of about AT_ONCE tokens."""
    first, tokens = 0, 0
    for i, one in enumerate(rows):
        tokens += len(one)
        if tokens >= AT_ONCE or i + 1 == len(rows):
            yield slice(first, i + 1)
            first, tokens = i + 1, 0
