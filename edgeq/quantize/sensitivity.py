"""How much a model's results suffer from an error in each of its matrices: KL divergence per relative error.

Each matrix alone is replaced by itself in a coarse type, and the divergence of the model's results is measured. For
small errors that grows with their square, so one measurement stands for all types.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File
from edgeq.graph.aligned import aligned
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture
from edgeq.quantize.layerwise import readings
from edgeq.runtime.session import Session

COARSE = "Q3_K"  # in it a matrix' error is far above rounding, and small enough to be squared
SEQUENCES = 2  # that are looked at, spread evenly
POSITIONS = 256  # whose results are compared

Progress = Callable[[str, int, int], None]  # (matrix, how many are done, how many there are)


def sensitivities(
    file: File,
    sequences: Sequence[npt.NDArray[np.int32]],
    mean_square: Callable[[str], F32 | None],
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Divergence in nats per `relative_error`, by name of each matrix of `file`, a nearly exact model (Q8_0 is)."""
    every = len(sequences) / min(SEQUENCES, len(sequences))
    chosen = [sequences[int(i * every)] for i in range(min(SEQUENCES, len(sequences)))]
    probe = _Probe(file, chosen, threads)
    names = list(_matrices(file))
    found: dict[str, float] = {}
    for name, first in _matrices(file):
        rows, columns = file.tensors[name].shape
        kind = COARSE if block_type(COARSE).accepts(columns) else "F16"
        weights = decode(file.data(name), rows, columns, file.tensors[name].type)
        panels = encode_panels(weights, kind, threads)
        error = relative_error(weights, decode(panels, rows, columns, kind), mean_square(name))
        found[name] = probe.divergence(first, name, kind, panels) / error if error else 0.0
        if progress:
            progress(name, len(found), len(names))
    return found


def relative_error(weights: F32, other: F32, mean_square: F32 | None) -> float:
    """E|x (W - W^)|^2 / E|x W|^2 for inputs x without correlations whose squares are `mean_square`, f32 [columns]."""
    importance = np.ones(weights.shape[1]) if mean_square is None else mean_square.astype(np.float64)
    whole = float(np.square(weights, dtype=np.float64).sum(0) @ importance)
    return float(np.square(weights - other, dtype=np.float64).sum(0) @ importance) / whole if whole else 0.0


def _matrices(file: File) -> Iterator[tuple[str, int]]:
    """(name, first stage that reads it) of every matrix of a linear layer, and of the embedding."""
    model = architecture(file.metadata["config"], file.path)
    shapes = {name: info.shape for name, info in file.tensors.items()}
    yield "token_embd.weight", 0
    for stage in range(1, model.num_hidden_layers + 2):
        for reading in readings(model, shapes, range(stage, stage + 1)):
            yield from ((name, stage) for name in reading.names if name != "token_embd.weight")


class _Probe:
    """Compares a model with what it is when one matrix is another."""

    def __init__(self, file: File, sequences: Sequence[npt.NDArray[np.int32]], threads: int) -> None:
        self.file, self.threads = file, threads
        self.layers = architecture(file.metadata["config"], file.path).num_hidden_layers
        self._context = max(map(len, sequences))
        rows: list[Any] = [np.asarray(one) for one in sequences]
        self._inputs = [rows]  # of each stage, by sequence
        for stage in range(self.layers + 1):
            rows = self._run(file, range(stage, stage + 1), rows)
            self._inputs.append(rows)
        step = max(sum(map(len, sequences)) // POSITIONS, 1)
        self._positions = [np.arange(step - 1, len(one), step) for one in sequences]
        self._exact = self._results(file, rows)

    def divergence(self, first: int, name: str, kind: str, panels: U8) -> float:
        """Mean KL divergence in nats, if matrix `name`, which stage `first` is the first to read, is `panels`."""
        memory = aligned(panels.nbytes)
        memory[:] = panels
        changed = ChangedFile(self.file, {name: (kind, memory)})
        rows = self._inputs[first]
        if first <= self.layers:
            rows = self._run(changed, range(first, self.layers + 1), rows)
        other = self._results(changed, rows)
        return float(
            np.mean([np.sum(np.exp(p) * (p - q), axis=1).mean() for p, q in zip(self._exact, other, strict=True)])
        )

    def _run(self, file: File, stages: range, rows: Sequence[Any]) -> list[F32]:
        found = []
        with self._session(file, stages) as session:
            for one in rows:
                session.rewind(0)
                found.append(session.eval(one, all_logits=True))
        return found

    def _results(self, file: File, rows: Sequence[F32]) -> list[F32]:
        """Logarithms of probabilities at the chosen positions."""
        chosen = [one[at] for one, at in zip(rows, self._positions, strict=True)]
        logits = self._run(file, range(self.layers + 1, self.layers + 2), chosen)
        return [_log_softmax(one) for one in logits]

    def _session(self, file: File, stages: range) -> Session:
        return Session(
            file, context=self._context, batch=self._context, threads=self.threads, kv="f16", stages=stages, force=True
        )


def _divergence(exact: F32, other: F32) -> float:
    """Mean KL divergence of logarithms of probabilities, [positions, vocabulary]."""
    return float(np.sum(np.exp(exact) * (exact - other), axis=1).mean())


def _log_softmax(logits: F32) -> F32:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: F32 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
