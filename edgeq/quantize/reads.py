"""Which matrices of a model read what: taken from its graph, without running it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32
from edgeq.blocks.reference import decode
from edgeq.container.reader import File
from edgeq.models import Architecture
from edgeq.ops import Graph, passes
from edgeq.ops.experts import Experts, MixtureOfExperts
from edgeq.ops.matmul import Linear
from edgeq.ops.route import reference as route
from edgeq.ops.tap import Tap


@dataclass(frozen=True)
class Router:
    """What sends a token to some of the experts `mix`: weight f64 [experts, columns], bias f64 [experts] or 0, and
    perhaps what is added when they are chosen, and what each's weight is multiplied by, f32 [experts]."""

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | float
    mix: Experts
    favour: F32 | None = None
    scales: F32 | None = None

    @property
    def matrices(self) -> tuple[str, ...]:
        """Those of the experts that read what the router reads."""
        return tuple(f"{self.mix.prefix}_{part}_exps.weight" for part in self.mix.reading)

    def routed(self, x: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], F32]:
        """The experts that rows f64 [rows, columns] go to, int64 [rows, top_k], and what each counts, f32."""
        mix = self.mix
        return route(
            x @ self.weight.T + self.bias,
            mix.top_k,
            mix.normalized,
            mix.factor,
            self.favour,
            sigmoid=mix.sigmoid,
            least=mix.least,
            groups=mix.groups,
            top_groups=mix.top_groups,
            scales=self.scales,
            spread=mix.spread,
        )


def inputs(model: Architecture, file: File) -> list[tuple[str, ...]]:
    """The matrices that read a row of every token, not the head nor experts: together those that read the same, of
    which a session keeps one copy, in the order of the pass."""
    nodes = _graph(model, file).nodes
    names = {node.op.weight for node in nodes if isinstance(node.op, Linear) and not node.op.x.outputs}
    return [node.op.names for node in passes.taps(nodes, names)[0] if isinstance(node.op, Tap)]


def routers(model: Architecture, file: File) -> dict[str, Router]:
    """Of each mixture of experts that read what their router reads that one, by the name of its matrix."""
    nodes = _graph(model, file).nodes
    made_by = {node.output: node.op for node in nodes if isinstance(node.op, Linear)}
    found = {}
    for node in nodes:
        if isinstance(node.op, MixtureOfExperts):
            linear = made_by[node.op.router]
            if linear.x != node.op.x:
                continue
            bias = file.data(linear.bias).view(np.float32).astype(np.float64) if linear.bias else 0.0
            mix = node.op.experts
            favour, scales = (file.data(name).view(np.float32) if name else None for name in (mix.bias, mix.scales))
            found[linear.weight] = Router(_weights(file, linear.weight), bias, mix, favour, scales)
    return found


def _graph(model: Architecture, file: File) -> Graph:
    shapes: Mapping[str, tuple[int, ...]] = {name: tuple(info.shape) for name, info in file.tensors.items()}
    graph = Graph(shapes)
    model.graph(graph)
    return graph


def _weights(file: File, name: str) -> npt.NDArray[np.float64]:
    info = file.tensors[name]
    rows, columns = info.shape
    return decode(file.data(name), rows, columns, info.type).astype(np.float64)
