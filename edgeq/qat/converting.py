"""Writes the `.eqf` file of a prepared model: its matrices as they round, all else as conversion has it."""

import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from edgeq.blocks.fields import Fields
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.reference import encode
from edgeq.blocks.table import block_type
from edgeq.conversion.conversion import check_tokenizer
from edgeq.errors import CheckpointError, UsageError
from edgeq.qat.grid import Grid
from edgeq.qat.module_checkpoint import ModuleCheckpoint, assets_of, config_of
from edgeq.qat.preparing import PREPARED, Matrix, Prepared
from edgeq.qat.rounded_layers import Rounding
from edgeq.quantize.converted import Report
from edgeq.quantize.pipeline import Encoded, convert_open


def convert(
    model: nn.Module,
    out: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    announce: Callable[[str], None] | None = None,
    allow_no_tokenizer: bool = False,
) -> Report:
    """Write a prepared transformers model as the `.eqf` file `out`: its weights decode to the bits that the layers
    compute with.

    `source` is the checkpoint (folder or Hub repository) whose tokenizer and chat template the file gets; by default
    what the model was loaded from. The rest is as for `edgeq.convert`.

    Raises UsageError for a model that is not prepared, or not made from anything; UnsupportedError for a module that
    is no transformers model; CheckpointError for weights that are no finite numbers; and what `edgeq.convert` does.
    """
    prepared: Prepared | None = getattr(model, PREPARED, None)
    if prepared is None:
        raise UsageError(f"{type(model).__name__}: is not prepared: call `prepare` first")
    config_of(model)
    if any(getattr(layer, "adapter", None) is not None for layer in model.modules()):
        raise UsageError(f"{type(model).__name__}: has adapters, which the file cannot hold: `merge` them first")
    source = source or getattr(model, "name_or_path", "")
    if not source and not allow_no_tokenizer:
        raise UsageError(f"{type(model).__name__}: was loaded from nowhere: say whose tokenizer it has by `source`")
    checkpoint = ModuleCheckpoint(model, assets_of(source) if source else {})
    checkpoint.source = os.fspath(source or "") or checkpoint.source  # what the file says that it was made from
    for name, weight in checkpoint.weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{checkpoint.source}: {name} is not finite: train with a smaller rate")
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "rounding")}
    encoded = {one.name: Encoded(one.type, panels_of(one, layers)) for one in prepared.matrices}
    return convert_open(
        checkpoint,
        out,
        prepared.recipe,
        threads,
        allow_no_tokenizer=allow_no_tokenizer,
        announce=announce,
        check_assets=check_tokenizer,
        encoded=encoded,
    )


def panels_of(matrix: Matrix, layers: Mapping[str, nn.Module]) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """The panels u8 [tensor_bytes] of a matrix of the file."""
    found: list[Fields] = []
    plain: list[np.ndarray] = []
    for owner, index in matrix.parts:
        layer = layers[owner]
        rounding: Rounding = layer.rounding
        rows, piece = rounding.rows[index], rounding.pieces[index]
        weight = layer.weight.detach()
        weight = weight if rows is None else weight[rows.to(weight.device)]
        if isinstance(piece, Grid):
            found.append(piece.fields(weight))
        else:
            plain.append(weight.cpu().numpy())
    if plain:
        return encode(np.concatenate(plain), matrix.type).view(np.uint8).reshape(-1)
    whole = {name: np.concatenate([part.header[name] for part in found]) for name in found[0].header}
    return pack_panels(Fields(np.concatenate([part.codes for part in found]), **whole), block_type(matrix.type))
