"""Linear and embedding layers that compute with the weights that the file will hold."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeq.blocks.panels import unpack_panels
from edgeq.blocks.table import GROUP, BlockType, block_type
from edgeq.kernels import encode_api
from edgeq.qat.grid import Grid
from edgeq.system import environment

LEAST_INPUT = 1e-30  # a group of inputs whose largest is below is zero, as the kernels have it


class Plain(nn.Module):
    """Rows of a matrix in F16 or BF16; rounds as `Grid` does."""

    def __init__(self, bt: BlockType) -> None:
        super().__init__()
        self.bt = bt

    def forward(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        weight = weight if rows is None else weight[rows]
        kind = torch.float16 if self.bt.name == "F16" else torch.bfloat16
        return _replaced(weight, weight.detach().to(kind).float())

    def step(self) -> float:
        """As of `Grid`: there is no one step, and none that matters."""
        return 0.0


class Rounding(nn.Module):
    """How the weight of a layer is rounded: rows of it each with their own scales.

    A fused matrix becomes several of the file, each of a type of its own; `rows` are int64 [n] of each piece, None
    where it is all of the matrix.
    """

    def __init__(self, pieces: list[Grid | Plain], rows: list[Tensor | None]) -> None:
        super().__init__()
        self.pieces = nn.ModuleList(pieces)
        self.rows = rows

    def forward(self, weight: Tensor, picked: Tensor | None = None) -> Tensor:
        """The weight, rounded; or the rows of it that are `picked`, where it is of one piece."""
        if self.rows[0] is None:
            found: Tensor = self.pieces[0](weight, picked)
            return found
        for rows, piece in zip(self.rows, self.pieces, strict=True):
            assert rows is not None
            weight = weight.index_copy(0, rows.to(weight.device), piece(weight[rows.to(weight.device)]))
        return weight if picked is None else weight[picked]

    @property
    def quantizes_inputs(self) -> bool:
        """Whether the kernels multiply what is read as 8-bit codes: so they do for all quantized types."""
        return all(isinstance(piece, Grid) for piece in self.pieces)


def encoded_grid(weight: Tensor, kind: str, learned: bool) -> Grid | Plain:
    """The scales that the encoder of a type finds for a matrix."""
    bt = block_type(kind)
    if not bt.quantized:
        return Plain(bt)
    encode_api.prepare([kind])
    rows, columns = weight.shape
    threads = environment.threads() or environment.processors()
    data = encode_api.encode_panels(weight.cpu().numpy(), kind, threads)
    return Grid(unpack_panels(data, rows, columns, bt), bt, learned)


class QatLinear(nn.Linear):
    """A linear layer whose weight is rounded in every pass, and what it reads too where `rounds_inputs`. An `adapter`
    adds what it makes of the inputs as they are."""

    rounding: Rounding
    rounds_inputs: bool
    adapter: Any

    def forward(self, input: Tensor) -> Tensor:
        rounds = self.rounds_inputs and self.rounding.quantizes_inputs
        found = functional.linear(round_inputs(input) if rounds else input, self.rounding(self.weight), self.bias)
        return found if self.adapter is None else found + self.adapter(input)


class QatEmbedding(nn.Embedding):
    """An embedding whose rows are rounded when they are looked up."""

    rounding: Rounding

    def forward(self, input: Tensor) -> Tensor:
        picked, places = torch.unique(input, return_inverse=True)
        return functional.embedding(places, self.rounding(self.weight, picked))


def round_inputs(x: Tensor) -> Tensor:
    """Rows f32 [..., columns] as the kernels round what they multiply (`edgeq.blocks.activations`): 8-bit codes, one
    scale for 32 columns. The gradient passes straight through."""
    with torch.no_grad():
        groups = x.float().reshape(*x.shape[:-1], -1, GROUP)
        largest = groups.abs().amax(-1, keepdim=True)
        tiny = largest < LEAST_INPUT
        codes = (groups * torch.where(tiny, 0.0, 127 / largest)).round_()
        rounded = (codes * torch.where(tiny, 0.0, largest / 127)).reshape(x.shape)
    return _replaced(x, rounded)


class _Replaced(torch.autograd.Function):
    """The second value, with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def _replaced(x: Tensor, rounded: Tensor) -> Tensor:
    found: Tensor = _Replaced.apply(x, rounded)
    return found


@lru_cache
def rounding_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of layers of this `kind`, a linear layer or an embedding, that round their weights. What a subclass
    does beside, as scaling what it looks up, stays."""
    base = QatLinear if issubclass(kind, nn.Linear) else QatEmbedding
    plain = kind in (nn.Linear, nn.Embedding)
    return base if plain else type(f"Qat{kind.__name__}", (kind, base), {})
