"""Whether a checkpoint has what its config.json says: the tensors of the model, in their shapes, and no other's."""

import re
from collections.abc import Mapping

from edgeq.checkpoints import Checkpoint
from edgeq.checkpoints.checkpoint import VOCABULARIES
from edgeq.errors import CheckpointError, TokenizerError, UnsupportedError
from edgeq.models import Architecture
from edgeq.models.tensors import Tensor
from edgeq.quantize.chunks import Sources

_LAYER = re.compile(r"((?:.*\.)?)(?:layers|h)\.(\d{1,9})\.", re.ASCII)


def check_unquantized(checkpoint: Checkpoint, model: Architecture) -> None:
    """UnsupportedError for a checkpoint that says it is quantized, but has no matrix that is."""
    quantization = checkpoint.config.get("quantization_config")
    if quantization and not checkpoint.packed and not any(tensor.ternary for tensor in model.tensors.values()):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else "unknown"
        raise UnsupportedError(
            f"{checkpoint.source}: config.json says that it is quantized (method {method!r}), but no tensor is stored "
            "that way: convert the original checkpoint"
        )


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """TokenizerError for a checkpoint without one."""
    if not checkpoint.assets.keys() & {"tokenizer.json", "tokenizer.model", *VOCABULARIES}:
        raise TokenizerError(
            f"{checkpoint.source}: has neither tokenizer.json nor tokenizer.model: put the model's tokenizer beside it"
        )


def check_names(
    checkpoint: Checkpoint, model: Architecture, tensors: Mapping[str, Tensor], sources: Sources
) -> list[str]:
    """The checkpoint's names that the model does not need; CheckpointError if one that it needs is missing."""
    needed = list(dict.fromkeys(name for tensor in tensors.values() for part in tensor.parts for name in part.needs))
    found = {source: sources.name(source) for source in needed}
    missing = [source for source in needed if found[source] is None]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise CheckpointError(
            f"{checkpoint.source}: has no tensor {missing[0]!r}{more}: "
            "the checkpoint is incomplete, or its config.json belongs to another model"
        )
    used = set(found.values())
    skipped = [name for name in checkpoint.tensors if name not in used]
    for name in skipped:
        _refuse_surplus_layer(checkpoint, model, name)
    return skipped


def check_shapes(checkpoint: Checkpoint, tensor: Tensor, sources: Sources) -> None:
    """CheckpointError for a part of a tensor that has another shape than its model gives it."""
    for source, shape, transposed in ((*one, part.transposed) for part in tensor.parts for one in part.needs.items()):
        ref = checkpoint.tensors[sources.name(source) or ""]
        turned = transposed and ref.name in checkpoint.packed  # quantized, they are rows of outputs everywhere
        if ref.shape != (shape[::-1] if turned else shape):
            raise CheckpointError(
                f"{checkpoint.source}: tensor {ref.name!r} has shape {list(ref.shape)}, not {list(shape)} as "
                "config.json says"
            )


def _refuse_surplus_layer(checkpoint: Checkpoint, model: Architecture, name: str) -> None:
    """CheckpointError for a tensor of a layer past the last: without its layer the model would be another one."""
    layer = _LAYER.match(name)
    if layer and layer[1] in model.prefixes and int(layer[2]) >= model.layers_there:
        raise CheckpointError(
            f"{checkpoint.source}: tensor {name!r} belongs to no layer: config.json has num_hidden_layers "
            f"{model.num_hidden_layers}: take the config.json that belongs to the weights"
        )
