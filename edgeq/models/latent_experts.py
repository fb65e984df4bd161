"""Experts that work on fewer values than the residual stream has."""

from typing import NamedTuple

from edgeq.models.feed_forward import MixtureOfExperts
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class LatentExperts(NamedTuple):
    """Experts of fewer values: `into` takes the residual stream's to them, `out` what they give back. The router reads
    the residual stream."""

    experts: MixtureOfExperts
    into: Matrix
    out: Matrix

    @property
    def one_input(self) -> bool:
        """Whether experts and their router read the same."""
        return False

    @property
    def experts_read(self) -> float:
        """Of those that are chosen from."""
        return self.experts.experts_read

    def tensors(self, t: Tensors) -> None:
        """The experts', the two matrices."""
        for part in (self.experts, self.into, self.out):
            part.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        narrow = self.into.graph(g, h, at)
        return self.out.graph(g, self.experts.graph(g, narrow, i, scores=self.experts.scores(g, h, i)), at, add_to)
