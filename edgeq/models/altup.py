"""AltUp (arXiv:2301.13310), as Gemma 3n has it: the residual stream is several, of which a layer computes one.

Before a layer all streams are predicted from all of them; it computes the active one; by how far that is from its
prediction the others are corrected. The weights of both come of a token's own router.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgeq.models.layers import Layer
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.norms import RMSNorm
from edgeq.models.per_layer import PerLayerEmbedding
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value

LEAST = 1e-5  # what a mean square counts as at least, where it divides
INTO, OUT = "altup_proj", "altup_unembd_proj"  # of the matrices that make and merge the streams, in the file
SCALE = "altup_correct_scale.weight"


class AltUp(NamedTuple):
    """`number` streams of `hidden` values, the one `active` being what layers compute; the others also get what each
    layer makes of its part of the second `embedding`, which reads the active one, times learnt values if `scaled`."""

    embedding: PerLayerEmbedding
    hidden: int
    number: int
    active: int
    scaled: bool
    eps: float

    @property
    def carries(self) -> bool:
        """Whether layers need more than what the one before them gives."""
        return True

    @property
    def into(self) -> list[Matrix]:
        """From the first embedding's row to every stream but the first."""
        return self._each(INTO, "model.altup_projections")

    @property
    def out(self) -> list[Matrix]:
        """Of every stream but the first, before all are added."""
        return self._each(OUT, "model.altup_unembed_projections")

    @property
    def norm(self) -> RMSNorm:
        """Of what the router reads."""
        return RMSNorm("altup_router_norm", "altup.router_norm", self.hidden, self.eps)

    @property
    def router(self) -> Matrix:
        """From the active stream to a value for each."""
        return Matrix("altup_router", "altup.modality_router", self.number, self.hidden)

    @property
    def predict(self) -> Matrix:
        """From the router's values to the weights of all streams in each."""
        return Matrix("altup_predict_coef", "altup.prediction_coefs", self.number * self.number, self.number)

    @property
    def correct(self) -> Matrix:
        """From the router's values to how much of the error each stream gets."""
        return Matrix("altup_correct_coef", "altup.correction_coefs", self.number, self.number)

    def _each(self, name: str, source: str) -> list[Matrix]:
        n = self.hidden
        return [Matrix(f"{name}_{i}", f"{source}.{i - 1}", n, n) for i in range(1, self.number)]

    def tensors(self, t: Tensors) -> None:
        """Those of no layer."""
        self.embedding.tensors(t)
        for matrix in (*self.into, *self.out):
            matrix.tensors(t)

    def layer_tensors(self, t: Tensors) -> None:
        """Those of a layer."""
        for part in (self.norm, self.router, self.predict, self.correct):
            part.tensors(t)
        if self.scaled:
            t.vector(SCALE, "altup.correct_output_scale", self.hidden)
        self.embedding.layer_tensors(t)

    def through(self, g: Graph, x: Value, layers: Iterable[tuple[int, Layer]]) -> Value:
        """The embedding's rows x after the numbered layers."""
        values = self.embedding.graph(g, x)
        streams = [x, *(g.rescale(matrix.graph(g, x), x, LEAST) for matrix in self.into)]
        for i, layer in layers:
            predicted = self._predicted(g, streams, i)
            computed = layer.graph(g, predicted[self.active], i)
            streams = self._corrected(g, predicted, computed, i, values)
        first, *others = streams
        others = [g.rescale(m.graph(g, y), first, LEAST) for m, y in zip(self.out, others, strict=True)]
        for other in others:
            first = g.add(first, other)
        return g.scale(first, 1.0 / self.number)

    def _routed(self, g: Graph, x: Value, at: str) -> Value:
        """The router's values, within -1 and 1."""
        routed = self.router.graph(g, self.norm.graph(g, x, at), at)
        return g.softcap(g.scale(routed, 1.0 / self.hidden), 1.0)

    def _predicted(self, g: Graph, streams: Sequence[Value], i: int) -> list[Value]:
        """All streams before layer i, new values."""
        at, n = layer_name(i), self.number
        weights = self.predict.graph(g, self._routed(g, streams[self.active], at), at)
        return [g.weighed_sum(x, tuple(streams), weights, at=k * n, stays=True) for k, x in enumerate(streams)]

    def _corrected(self, g: Graph, streams: list[Value], computed: Value, i: int, values: Value) -> list[Value]:
        """The predicted streams, in place, after layer i has `computed` the active one; `values` are all layers' of the
        second embedding."""
        at, active = layer_name(i), self.active
        weights = self.correct.graph(g, self._routed(g, computed, at), at)
        error = g.add(computed, streams[active], -1.0)
        read = streams[active]
        if self.scaled:
            read = g.weighed_sum(read, (error,), weights, at=active, plus=1.0, stays=True)
            read = g.mul_row(read, f"{at}{SCALE}")
        for k, stream in enumerate(streams):
            g.weighed_sum(stream, (error,), weights, at=k, plus=1.0)
        made = self.embedding.made(g, read, i, values)
        for stream in streams[1:]:
            self.embedding.last.graph(g, made, at, add_to=stream)
        return streams
