"""What follows a layer in Gemma 3n and 4: a second embedding table has values for every layer, which the layer gates
and adds; and all of the residual stream times a number.

The table is as large as all layers together, and a pass reads a row of it per token.
"""

from collections.abc import Iterable
from typing import NamedTuple

from edgeq.models.layers import Layer
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.norms import HeadNorm, RMSNorm
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value

TABLE = "per_layer_token_embd"
SCALAR = "layer_output_scale.weight"


class PerLayerEmbedding(NamedTuple):
    """Of every token `width` values for each of `layers`: its row of the table, times the root of `width`, and a normed
    projection of its embedding, of `hidden` values; what both add up to is divided by the root of 2. Tokens that
    the table's `rows` do not reach have its first one; without any rows there is no table, and no sum. The checkpoint
    has what is of no layer, and what is of one, under names that begin with `at` and `in_layer`."""

    rows: int
    width: int
    layers: int
    hidden: int
    activation: str
    eps: float
    at: str = "model."
    in_layer: str = ""

    @property
    def table(self) -> Matrix:
        """The second embedding."""
        return Matrix(TABLE, "model.embed_tokens_per_layer", self.rows, self.layers * self.width)

    @property
    def projection(self) -> Matrix:
        """From the first one's row."""
        source = f"{self.at}per_layer_model_projection"
        return Matrix("per_layer_model_proj", source, self.layers * self.width, self.hidden)

    @property
    def norm(self) -> HeadNorm:
        """Of the values of each layer by themselves."""
        return HeadNorm("per_layer_proj_norm", f"{self.at}per_layer_projection_norm", self.width, self.eps)

    @property
    def gate(self) -> Matrix:
        """Of a layer: what its values are multiplied by, before the activation."""
        return Matrix("inp_gate", f"{self.in_layer}per_layer_input_gate", self.width, self.hidden)

    @property
    def output(self) -> Matrix:
        """Of a layer: back into the residual stream."""
        return Matrix("proj", f"{self.in_layer}per_layer_projection", self.hidden, self.width)

    @property
    def last(self) -> RMSNorm:
        """Of what is added."""
        return RMSNorm("post_norm", f"{self.in_layer}post_per_layer_input_norm", self.hidden, self.eps)

    def tensors(self, t: Tensors) -> None:
        """Those of no layer."""
        for part in (self.table, self.projection, self.norm) if self.rows else (self.projection, self.norm):
            part.tensors(t)

    def layer_tensors(self, t: Tensors) -> None:
        """Those of a layer."""
        for part in (self.gate, self.output, self.last):
            part.tensors(t)

    def graph(self, g: Graph, x: Value) -> Value:
        """The values of all layers, side by side; x are the first embedding's."""
        values = self.norm.graph(g, g.scale(self.projection.graph(g, x), self.hidden**-0.5))
        if not self.rows:
            return values
        values = g.add(values, g.embedding(f"{TABLE}.weight"), self.width**0.5)
        return g.scale(values, 2.0**-0.5)

    def made(self, g: Graph, x: Value, i: int, values: Value) -> Value:
        """What layer i makes of its values, reading x."""
        at = layer_name(i)
        gated = g.activation(self.gate.graph(g, x, at), self.activation, values, up_at=i * self.width)
        return self.output.graph(g, gated, at)

    def add(self, g: Graph, x: Value, i: int, values: Value) -> Value:
        """x with that, normed."""
        return self.last.graph(g, self.made(g, x, i, values), layer_name(i), add_to=x)


class LayerEnd(NamedTuple):
    """What follows every layer: its part of the second embedding, then the number that x is multiplied by."""

    embedding: PerLayerEmbedding | None
    scaled: bool = True

    @property
    def carries(self) -> bool:
        """Whether layers need more than what the one before them gives."""
        return self.embedding is not None

    def tensors(self, t: Tensors) -> None:
        """Those of no layer."""
        if self.embedding:
            self.embedding.tensors(t)

    def layer_tensors(self, t: Tensors) -> None:
        """Those of a layer."""
        if self.embedding:
            self.embedding.layer_tensors(t)
        if self.scaled:
            t.scalar(SCALAR, "layer_scalar", axes=1)

    def through(self, g: Graph, x: Value, layers: Iterable[tuple[int, Layer]]) -> Value:
        """The embedding's rows x after the numbered layers."""
        values = self.embedding.graph(g, x) if self.embedding else None
        for i, layer in layers:
            x = layer.graph(g, x, i)
            if self.embedding and values is not None:
                x = self.embedding.add(g, x, i, values)
            x = g.scale_by(x, f"{layer_name(i)}{SCALAR}") if self.scaled else x
        return x
