"""Makes the layers of a torch model compute as those of a quantized file will."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeq.blocks.fields import Fields
from edgeq.blocks.panels import unpack_panels
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.container.reader import File, open_file
from edgeq.errors import UnsupportedError, UsageError
from edgeq.models.tensors import Part, settled
from edgeq.models.tensors import Tensor as Stored
from edgeq.qat.adapters import add_adapters
from edgeq.qat.grid import Grid
from edgeq.qat.module_checkpoint import ModuleCheckpoint
from edgeq.qat.rounded_layers import Plain, Rounding, encoded_grid, rounding_class
from edgeq.quantize.chunks import Sources
from edgeq.quantize.head import settle_head
from edgeq.quantize.recipes import Recipe, recipe

PREPARED = "_edgeq_prepared"


@dataclass
class Matrix:
    """A matrix of the file: for each part of it the layer, and which piece of that one's rounding it is."""

    name: str
    type: str
    parts: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """What conversion needs to know of a model: the recipe's name, and the matrices that are rounded."""

    recipe: str
    matrices: list[Matrix]


def prepare(
    model: nn.Module,
    recipe_name: str,
    start: str | os.PathLike[str] | None = None,
    *,
    activations: bool = False,
    learned_scales: bool = False,
    adapters: int = 0,
) -> nn.Module:
    """Round the weights of `model` in every pass from now on, as a file of the recipe `recipe_name` will hold them; the
    result is the same model, changed, its weights in f32.

    Of a transformers model each tensor gets the type that `edgeq convert --type` would give it. Of any other module
    linear layers and embeddings get the recipe's usual type; such a one can be trained, but not converted.

    start:          an `.eqf` file of this model, best a calibrated one of the same recipe: types, scales and all
                    weights are taken from it, so that training begins with what the file computes. Without it scales
                    are those that the encoder finds for the weights as they are.
    activations:    round also what linear layers of quantized types read, as the kernels do
    learned_scales: train scales and mins too
    adapters:       train low-rank adapters of this rank alone (`merge` and `save_adapters` are for what comes out); all
                    else is frozen as it rounds

    Raises UsageError for an unknown recipe, a model that is prepared already, or a file of another model;
    UnsupportedError for an architecture that edgeq does not know, or a quantized weight that belongs to neither a
    linear layer nor an embedding.
    """
    if hasattr(model, PREPARED):
        raise UsageError(f"{type(model).__name__}: is prepared already: load it anew")
    chosen = recipe(recipe_name)
    model.float()
    if hasattr(model, "config"):
        matrices = _prepare_known(model, chosen, start, learned_scales)
    elif start is not None:
        raise UsageError(f"{os.fspath(start)}: holds no {type(model).__name__}: leave out `start`")
    else:
        matrices = _prepare_any(model, chosen, learned_scales)
    _share(model, activations)
    if adapters:
        add_adapters(model, adapters)
    setattr(model, PREPARED, Prepared(chosen.name, matrices))
    return model


def _prepare_any(model: nn.Module, chosen: Recipe, learned: bool) -> list[Matrix]:
    """Round the layers of a module of which nothing else is known."""
    seen: set[int] = set()
    for name, module in [*model.named_modules()]:
        if not isinstance(module, nn.Linear | nn.Embedding) or id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        kind = chosen.type_for(f"{name}.weight", module.weight.shape, 0, tied=False).type
        if kind != "F32":
            _round(module, Rounding([encoded_grid(module.weight.detach(), kind, learned)], [None]))
    return []


def _prepare_known(
    model: nn.Module, chosen: Recipe, start: str | os.PathLike[str] | None, learned: bool
) -> list[Matrix]:
    """Round the layers of a transformers model, as what they become in the file."""
    if start is None:
        return [*_matrices(model, chosen, None, learned)]
    with open_file(start) as file:
        return [*_matrices(model, chosen, file, learned)]


def _matrices(model: nn.Module, chosen: Recipe, file: File | None, learned: bool) -> Iterator[Matrix]:
    view = ModuleCheckpoint(model)
    _, known, notes = settle_head(view)
    if notes:
        raise UnsupportedError(f"{view.source}: {notes[0]}: set its config's tie_word_embeddings to what it does")
    sources = Sources(view, known)
    tensors = settled(known.tensors, lambda source: sources.name(source) is not None)
    if file is not None:
        _check_same(file, tensors, view.source)
    found: dict[str, tuple[list[Grid | Plain], list[Tensor | None]]] = {}
    for name, tensor in tensors.items():
        kind = chosen.type_for(name, tensor.shape, known.num_hidden_layers, "output.weight" not in tensors).type
        kind = kind if file is None else file.tensors[name].type
        matrix, fields, first = Matrix(name, kind), None, 0
        if file is not None:
            fields = _start(view, sources, file, name, tensor)
        for part in tensor.parts if kind != "F32" else ():
            source = _checked(model, view, sources, part, tensor, kind)
            rows = rows_of(part)
            if fields is not None:
                picked = _rows(fields, first, part.rows)
                piece: Grid | Plain = Grid(picked, block_type(kind), learned)
            else:
                weight = view.weights[source].detach()
                piece = encoded_grid(weight if rows is None else weight[rows], kind, learned)
            pieces, places = found.setdefault(view.owners[source], ([], []))
            matrix.parts.append((view.owners[source], len(pieces)))
            pieces.append(piece)
            places.append(rows)
            first += part.rows
        if kind != "F32":
            yield matrix
    for owner, held in found.items():
        _round(model.get_submodule(owner), Rounding(*held))


def _checked(model: nn.Module, view: ModuleCheckpoint, sources: Sources, part: Part, tensor: Stored, kind: str) -> str:
    """The name of the weight that a part of a matrix is rows of. UnsupportedError where that is no layer's that can
    round it."""
    source = sources.name(part.source) or part.source
    layer = dict(model.named_modules()).get(view.owners.get(source, ""))
    whole = part.plane is None and part.turned is None and part.channels == 1
    plain = whole and not (part.transposed or part.flat or tensor.ternary or tensor.add)
    if not plain or len(tensor.shape) != 2 or not isinstance(layer, nn.Linear | nn.Embedding):
        what = "is rounded already" if tensor.ternary else "belongs to no linear layer and no embedding"
        raise UnsupportedError(f"{type(model).__name__}: the weight {source} {what}: it cannot be trained as {kind}")
    return source


def _rows(fields: Fields, first: int, count: int) -> Fields:
    """Some rows of a matrix."""
    header = {name: part[first : first + count] for name, part in fields.header.items()}
    return Fields(fields.codes[first : first + count], **header)


def rows_of(part: Part) -> Tensor | None:
    """Which rows of a weight a part is, int64 [rows]; None where it is all of them, as they are."""
    at = np.arange(part.rows)
    run = part.run or part.rows
    rows = part.first + at // run * part.step + at % run
    return None if len(rows) == part.shape[0] and np.array_equal(rows, at) else torch.from_numpy(rows)


def _check_same(file: File, tensors: Mapping[str, Stored], called: str) -> None:
    """UsageError for a file of a model with other tensors."""
    shapes = {name: info.shape for name, info in file.tensors.items()}
    wanted = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != wanted:
        name = next(name for name in (*wanted, *shapes) if shapes.get(name) != wanted.get(name))
        raise UsageError(f"{file.path}: is not of this {called}: {name} differs: start with a file made of it")


def _start(view: ModuleCheckpoint, sources: Sources, file: File, name: str, tensor: Stored) -> Fields | None:
    """Give the model's weights the values of the file; a quantized matrix' codes and scales."""
    info, first = file.tensors[name], 0
    bt, fields = block_type(info.type), None
    if len(info.shape) == 1:
        values = file.data(name).view("<f4") - np.float32(tensor.add)
        values = np.log(-values) if tensor.log else values
    else:
        shape = prod(info.shape[:-1]), info.shape[-1]
        values = decode(file.data(name), *shape, info.type) - np.float32(tensor.add)
        fields = unpack_panels(file.data(name), *shape, bt) if bt.quantized else None
    with torch.no_grad():
        for part in tensor.parts:
            weight, rows = view.weights[sources.name(part.source) or part.source], rows_of(part)
            given = torch.from_numpy(values[first : first + part.rows].copy()).to(weight.device)
            if rows is None:
                weight.copy_(given.reshape(weight.shape))
            else:
                weight[rows] = given.reshape(-1, *weight.shape[1:])
            first += part.rows
    return fields


def _round(layer: nn.Module, rounding: Rounding) -> None:
    kind: Any = type(layer)
    layer.__class__ = rounding_class(kind)
    layer.rounding = rounding.to(layer.weight.device)


def _share(model: nn.Module, activations: bool) -> None:
    """Let layers with one weight round it in one way; say whether they round what they read."""
    held = {id(layer.weight): layer.rounding for layer in model.modules() if hasattr(layer, "rounding")}
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Embedding) and id(layer.weight) in held:
            if not hasattr(layer, "rounding"):
                _round(layer, held[id(layer.weight)])
            if isinstance(layer, nn.Linear):
                layer.rounds_inputs, layer.adapter = activations, None
