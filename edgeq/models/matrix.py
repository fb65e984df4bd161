"""A matrix of a model: its names, its shape, and its product with a value."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edgeq.errors import FormatError
from edgeq.models.tensors import Fused, Tensor, Tensors
from edgeq.ops import Graph, Value


class Matrix(NamedTuple):
    """`name` [rows, columns] in the file, `source` in the checkpoint, with a bias if it has one.

    fused:      it is this slice of the checkpoint's
    transposed: the checkpoint has [columns, rows]
    ternary:    weights are rounded, see Tensor
    instead:    what the checkpoint may call it as well
    ending:     what the checkpoint's name of its weights ends with
    biased:     what it calls the bias, where that is not named after the matrix
    bounded:    what goes in and what comes out is held within bounds of its own, whose names there begin with this
    """

    name: str
    source: str
    rows: int
    columns: int
    bias: bool = False
    fused: Fused | None = None
    transposed: bool = False
    ternary: bool = False
    instead: str = ""
    ending: str = ".weight"
    biased: str = ""
    bounded: str = ""

    def tensors(self, t: Tensors) -> None:
        """The weights, and the bias."""
        fused, bias = self.fused or Fused(self.rows), self.bias and not self.biased
        shape = self.rows, self.columns, fused
        t.slice(self.name, self.source, *shape, bias, self.transposed, self.ternary, self.ending)
        if self.bias and self.biased:
            t.vector(f"{self.name}.bias", self.biased, self.rows)
        if self.instead:
            t.also(self.name, self.instead, self.rows, self.columns)
        if self.bounded:
            t.bounds(self.name, self.bounded)

    def graph(self, g: Graph, x: Value, at: str = "", add_to: Value | None = None) -> Value:
        """The product with x, plus the bias, added to `add_to`; `at` is what the layer's names begin with."""
        bias = f"{at}{self.name}.bias" if self.bias else None
        if not self.bounded:
            return g.linear(x, f"{at}{self.name}.weight", bias, add_to)
        into, out = ((f"{at}{self.name}.{way}_min", f"{at}{self.name}.{way}_max") for way in ("input", "output"))
        made = g.clamp(g.linear(g.clamp(x, *into), f"{at}{self.name}.weight", bias), *out)
        return made if add_to is None else g.add(add_to, made)


_LAYER = re.compile(r"blk\.(\d+)\.", re.ASCII)


FURTHER = "num_nextn_predict_layers"  # config.json's key of layers that predict further tokens, which come last


def layers_held(layers: int, config: Mapping[str, Any]) -> int:
    """How many layers a file of such a model may hold: `layers`, and those that predict further tokens."""
    further = config.get(FURTHER)
    return layers + (further if type(further) is int and 0 < further < 100 else 0)


def layer_past_the_last(names: Iterable[str], layers: int) -> str | None:
    """The first of the tensors `names` that is of a layer beyond `layers`, if any is: without that layer the model
    would be another one."""
    found = ((name, _LAYER.match(name)) for name in names)
    return next((name for name, match in found if match and (len(match[1]) > 9 or int(match[1]) >= layers)), None)


def layer_name(i: int) -> str:
    """What the names of layer i's tensors begin with in the file."""
    return f"blk.{i}."


def check_tensors(
    shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor], layers: int, source: str
) -> None:
    """FormatError unless a file's tensors are those `wanted` of a model with so many layers."""
    if surplus := layer_past_the_last(shapes, layers):
        what = f"tensor {surplus} belongs to no layer: its configuration has {layers} layers"
        raise FormatError(f"{source}: {what}: convert the checkpoint again")
    for name, tensor in wanted.items():
        if name not in shapes:
            raise FormatError(f"{source}: tensor {name} is missing: convert the checkpoint again")
        if tuple(shapes[name]) != tensor.shape:
            raise FormatError(
                f"{source}: tensor {name} is {list(shapes[name])}, its configuration needs {list(tensor.shape)}: "
                "convert the checkpoint again"
            )
