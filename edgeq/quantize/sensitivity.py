"""How much a model's results suffer from an error in each of its matrices.

Each matrix alone is replaced by itself in a coarse type, and the divergence of the model's results is measured. For
small errors that grows with their square, so one measurement tells of all types; the embedding and the head, a large
part of a small model's bytes, are measured in each type.
"""

from collections.abc import Callable, Iterator

import numpy as np

from edgeq.blocks.fields import F32
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File
from edgeq.graph.aligned import aligned
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture
from edgeq.quantize.layerwise import EMBEDDING, readings
from edgeq.quantize.loss_probe import Probe

COARSE = "Q3_K"  # in it a matrix' error is far above rounding, and small enough to be squared
ENDS = (EMBEDDING, "output.weight")
TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")  # in which these are measured

Measured = dict[str, dict[str, float]]  # divergence in nats, by name of a matrix, by type
MeanSquare = Callable[[str], F32 | None]  # of what a matrix reads, by column
Progress = Callable[[str, int, int], None]  # (matrix, how many are done, how many there are)


def sensitivities(probe: Probe, mean_square: MeanSquare, progress: Progress | None = None) -> Measured:
    """Of each matrix of the probe's model."""
    matrices = list(_matrices(probe.file))
    found: Measured = {}
    for name, first in matrices:
        rows, columns = probe.file.tensors[name].shape
        weights = decode(probe.file.data(name), rows, columns, probe.file.tensors[name].type)
        found[name] = {}
        for kind in TYPES if name in ENDS else (COARSE,):
            if block_type(kind).accepts(columns):
                panels = encode_panels(weights, kind, probe.threads, mean_square(name))
                memory = aligned(panels.nbytes)
                memory[:] = panels
                changed = ChangedFile(probe.file, {name: (kind, memory)})
                found[name][kind] = probe.loss(changed, first).divergence
        if progress:
            progress(name, len(found), len(matrices))
    return found


def relative_error(weights: F32, other: F32, mean_square: F32 | None) -> float:
    """E|x (W - W^)|^2 / E|x W|^2 for inputs x without correlations whose squares are `mean_square`, f32 [columns]."""
    importance = np.ones(weights.shape[1]) if mean_square is None else mean_square.astype(np.float64)
    whole = float(np.square(weights, dtype=np.float64).sum(0) @ importance)
    return float(np.square(weights - other, dtype=np.float64).sum(0) @ importance) / whole if whole else 0.0


def _matrices(file: File) -> Iterator[tuple[str, int]]:
    """(name, first stage that reads it) of the embedding, and of every matrix of a linear layer."""
    model = architecture(file.metadata["config"], file.path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    yield EMBEDDING, 0
    for stage in range(1, model.num_hidden_layers + 2):
        for reading in readings(model, shapes, range(stage, stage + 1)):
            yield from ((name, stage) for name in reading.names if name != EMBEDDING)
