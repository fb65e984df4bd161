"""How much a model's results suffer from each type of each of its matrices.

Each matrix alone is quantized in a coarse type, with error feedback, and the divergence of the model's results is
measured. For small errors that grows with their square in the metric of what the matrix reads, so one measurement tells
of all types; the head, a large part of a small model's bytes, is measured in each of some types.

Quantized one after the other, matrices make good a part of what those before them have cost: most of what the embedding
has, with which all begins, less of each other's. So that is measured for the embedding apart from the others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.reference import decode
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File
from edgeq.graph.aligned import aligned_copy
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture
from edgeq.quantize.factors import Metric
from edgeq.quantize.layerwise import EMBEDDING, LayerWise
from edgeq.quantize.loss_probe import Probe
from edgeq.quantize.stages import Rows, moment, readings, run

COARSE = "Q3_K"  # in it a matrix' error is far above rounding, and small enough to be squared
FINE = "Q8_0"  # in it a model loses little but what rounding its activations costs
HEAD = "output.weight"
MEASURED = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")  # the types in which that is
SAMPLE = 8 * PANEL_ROWS  # rows of a matrix by which types are compared
TOGETHER = 32  # sequences tell what quantizing one matrix after the other saves; eight tell a third too little

Progress = Callable[[int, int], None]  # (how many matrices are done, how many there are)


@dataclass(frozen=True)
class Sensitivities:
    """losses   divergence in nats that a type of one matrix alone brings, by name, by type
    floor    that of all matrices in FINE, as good as exact: what rounding activations costs in every file
    coarse   that of all matrices in COARSE
    others   the same with an exact embedding

    The latter three are of matrices quantized one after the other, as those of the file will be.
    """

    losses: dict[str, dict[str, float]]
    floor: float
    coarse: float
    others: float

    def added(self, name: str) -> dict[str, float]:
        """What each type of a matrix adds to the divergence of a whole file."""
        kept = self._kept[name != EMBEDDING]
        return {kind: loss * kept for kind, loss in self.losses[name].items()}

    @property
    def _kept(self) -> tuple[float, float]:
        """What quantizing all matrices leaves of what the embedding costs alone; of the others' sum."""
        first = self.losses.get(EMBEDDING, {}).get(COARSE, 0.0)
        alone = sum(losses[COARSE] for name, losses in self.losses.items() if name != EMBEDDING)
        return _ratio(self.coarse - self.others, first), _ratio(self.others - self.floor, alone)


def sensitivities(
    file: File,
    sequences: Sequence[npt.NDArray[np.int32]],
    held: Sequence[npt.NDArray[np.int32]],
    types: Sequence[str],
    *,
    feedback: bool = True,
    head_gram: F32 | None = None,
    positions: int = 128,
    threads: int = 1,
    progress: Progress | None = None,
) -> Sensitivities:
    """Of the float model `file`, for `types` of its matrices, as quantized for the token ids `sequences`, with error
    feedback or by importance alone.

    The divergence of one matrix is measured at about `positions` of the first of `held`, that of all at some of each.
    """
    probe, number = Probe(file, held[:1], threads, positions), sum(1 for _ in _matrices(file))
    found: dict[str, dict[str, float]] = {}
    coarse: dict[str, U8] = {}
    for names, stage, gram in _read(file, sequences, head_gram, threads):
        metric = Metric(gram, sum(map(len, sequences)))
        for name in names:
            one = _Matrix(_decoded(file, name), metric, feedback, threads)
            if not one.accepts(COARSE):
                continue
            losses = {}
            for kind in dict.fromkeys([COARSE, *filter(one.accepts, MEASURED if name == HEAD else ())]):
                panels = one.panels(kind)
                losses[kind] = probe.loss(ChangedFile(file, {name: (kind, panels)}), stage).divergence
                if kind == COARSE and not feedback:
                    coarse[name] = panels
            costs = {kind: one.cost(kind) for kind in {COARSE, *filter(one.accepts, types)}}
            found[name] = {kind: losses[COARSE] * cost / (costs[COARSE] or 1.0) for kind, cost in costs.items()}
            found[name] |= losses
            if progress:
                progress(len(found), number)
    everything, some = Probe(file, held, threads), sequences[:: max(len(sequences) // TOGETHER, 1)]

    def together(types: dict[str, str]) -> float:
        if feedback:
            made = dict(LayerWise(file, types, some, head_gram=head_gram, threads=threads).tensors())
        else:
            made = {
                name: coarse[name] if kind == COARSE else _plain(file, name, kind, threads)
                for name, kind in types.items()
            }
        own = {name: (types[name], data) for name, data in made.items()}
        return everything.loss(ChangedFile(file, own)).divergence

    fine = {name: FINE for name in found if block_type(FINE).accepts(file.tensors[name].shape[1])}
    others = dict.fromkeys(found.keys() - {EMBEDDING}, COARSE)
    return Sensitivities(found, together(fine), together(dict.fromkeys(found, COARSE)), together(others))


def _ratio(whole: float, part: float) -> float:
    return whole / part if whole > 0 < part else 1.0


class _Matrix:
    """Weights f32 [rows, columns], and how they are quantized."""

    def __init__(self, weights: F32, metric: Metric, feedback: bool, threads: int) -> None:
        self.weights, self.metric, self.feedback, self.threads = weights, metric, feedback, threads
        step = max(len(weights) // SAMPLE, 1) * PANEL_ROWS
        starts = range(0, max(len(weights) - PANEL_ROWS, 0) + 1, step)
        self.sample: F32 = np.concatenate([weights[first : first + PANEL_ROWS] for first in starts])

    def accepts(self, kind: str) -> bool:
        return block_type(kind).accepts(self.weights.shape[1])

    def panels(self, kind: str) -> U8:
        """Of all rows."""
        return aligned_copy(self._quantized(self.weights, kind))

    def cost(self, kind: str) -> float:
        """What errors of the sample cost."""
        rows, columns = self.sample.shape
        found = decode(self._quantized(self.sample, kind), rows, columns, kind)
        return self.metric.cost(self.sample - found)

    def _quantized(self, weights: F32, kind: str) -> U8:
        if self.feedback:
            return self.metric.quantize(weights, block_type(kind), self.threads)
        importance = np.diagonal(self.metric.gram).astype(np.float32)
        return encode_panels(weights, kind, self.threads, importance)


def _plain(file: File, name: str, kind: str, threads: int) -> U8:
    return aligned_copy(encode_panels(_decoded(file, name), kind, threads))


def _read(
    file: File, sequences: Sequence[npt.NDArray[np.int32]], head_gram: F32 | None, threads: int
) -> Iterator[tuple[tuple[str, ...], int, npt.NDArray[np.float64]]]:
    """(matrices that read the same, the first stage that does, E[x x^T] of that) of the float model, in its order."""
    tied, width = HEAD not in file.tensors, file.tensors[EMBEDDING].shape[1]
    gram = head_gram if tied and head_gram is not None else np.eye(width)
    yield (EMBEDDING,), 0, gram.astype(np.float64)
    model = architecture(file.metadata["config"], file.path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    rows = run(file, range(1), sequences, threads)
    for stage in range(1, model.num_hidden_layers + 1):
        order = readings(model, shapes, range(stage, stage + 1))
        seen: dict[str, Rows] = {reading.names[0]: [] for reading in order}
        rows = run(file, range(stage, stage + 1), rows, threads, seen)
        for reading in order:
            x = seen.pop(reading.names[0])
            yield reading.names, stage, moment(x, x)
    if not tied:
        x = run(file, range(model.num_hidden_layers + 1, model.num_hidden_layers + 2), rows, threads, states=True)
        yield (HEAD,), model.num_hidden_layers + 1, moment(x, x)


def _matrices(file: File) -> Iterator[tuple[str, int]]:
    """(name, stage) of the embedding, and of every matrix of a linear layer."""
    model = architecture(file.metadata["config"], file.path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    yield EMBEDDING, 0
    for stage in range(1, model.num_hidden_layers + 2):
        for reading in readings(model, shapes, range(stage, stage + 1)):
            yield from ((name, stage) for name in reading.names if name != EMBEDDING)


def _decoded(file: File, name: str) -> F32:
    rows, columns = file.tensors[name].shape
    return decode(file.data(name), rows, columns, file.tensors[name].type)
