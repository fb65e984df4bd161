"""Norms: of the residual stream, of what goes into it, of queries and keys."""

from collections.abc import Callable
from typing import NamedTuple

from edgeq.models.matrix import Matrix
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class RMSNorm(NamedTuple):
    """RMSNorm of `width` values: `name` in the file, `source` in the checkpoint, or `instead`; `add` is added to its
    weights."""

    name: str
    source: str
    width: int
    eps: float
    add: float = 0.0
    instead: str = ""

    def tensors(self, t: Tensors) -> None:
        """The weights."""
        t.norm(self.name, self.source, self.width, add=self.add)
        if self.instead:
            t.vector_also(f"{self.name}.weight", f"{self.instead}.weight", self.width)

    def graph(self, g: Graph, x: Value, at: str = "", add_to: Value | None = None) -> Value:
        """x normed, added to `add_to`; `at` is what the layer's names begin with."""
        return g.rms_norm(x, f"{at}{self.name}.weight", self.eps, add_to)


class HeadNorm(NamedTuple):
    """RMSNorm of each head by itself, which all share the weights."""

    name: str
    source: str
    head_dim: int
    eps: float
    add: float = 0.0

    def tensors(self, t: Tensors) -> None:
        """The weights."""
        t.norm(self.name, self.source, self.head_dim, add=self.add)

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """x normed, in place."""
        return g.head_norm(x, (f"{at}{self.name}.weight",), self.head_dim, self.eps)


class HeadLayerNorm(NamedTuple):
    """LayerNorm of each head by itself, which all share the weights and the bias; or each of `apart` heads has weights
    of its own, `{}` in `source` standing for its number, and no bias."""

    name: str
    source: str
    head_dim: int
    eps: float
    apart: int = 0

    def tensors(self, t: Tensors) -> None:
        """The weights and the bias."""
        if self.apart:
            t.vectors(f"{self.name}.weight", f"{self.source}.weight", self.apart, self.head_dim)
        else:
            t.norm(self.name, self.source, self.head_dim, bias=True)

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """x normed, in place."""
        weight, bias = f"{at}{self.name}.weight", None if self.apart else f"{at}{self.name}.bias"
        return g.head_layer_norm(x, weight, bias, self.head_dim, self.eps, bool(self.apart))


class LayerNorm(NamedTuple):
    """LayerNorm of `width` values, with a `bias` if it has one; `add` is added to its weights."""

    name: str
    source: str
    width: int
    eps: float
    bias: bool = True
    add: float = 0.0

    def tensors(self, t: Tensors) -> None:
        """The weights and the bias."""
        t.norm(self.name, self.source, self.width, self.bias, self.add)

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """x normed."""
        bias = f"{at}{self.name}.bias" if self.bias else None
        return g.layer_norm(x, f"{at}{self.name}.weight", bias, self.eps)


class PlainRMSNorm(NamedTuple):
    """RMSNorm without weights."""

    eps: float

    def tensors(self, t: Tensors) -> None:
        """None."""

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """x normed."""
        return g.rms_norm(x, None, self.eps)


class PlainLayerNorm(NamedTuple):
    """LayerNorm without weights."""

    eps: float

    def tensors(self, t: Tensors) -> None:
        """None."""

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """x normed."""
        return g.layer_norm(x, None, None, self.eps)


class PlainHeadNorm(NamedTuple):
    """RMSNorm of each head by itself, without weights."""

    head_dim: int
    eps: float

    def tensors(self, t: Tensors) -> None:
        """None."""

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """x normed, in place."""
        return g.head_norm(x, (), self.head_dim, self.eps)

    def beside(self, g: Graph, x: Value) -> Value:
        """x normed, a new value."""
        return g.head_norm(x, (), self.head_dim, self.eps, stays=True)


class Projected(NamedTuple):
    """What is normed, and multiplied by a matrix."""

    norm: RMSNorm
    matrix: Matrix

    def tensors(self, t: Tensors) -> None:
        """Of both."""
        self.norm.tensors(t)
        self.matrix.tensors(t)

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """The product with x normed."""
        return self.matrix.graph(g, self.norm.graph(g, x, at), at)


class NoNorm(NamedTuple):
    """In place of a norm: x as it is."""

    def graph(self, g: Graph, x: Value, at: str = "") -> Value:
        """x."""
        return x


Norm = RMSNorm | LayerNorm | PlainRMSNorm | PlainLayerNorm
NamedNorm = Callable[[str, str], Norm]  # makes one of its name in the file and in the checkpoint
