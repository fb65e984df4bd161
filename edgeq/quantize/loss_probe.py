"""How far a model's results are from those of another: on a few hundred positions, for decisions while quantizing.

`edgeq eval` measures with more text, and more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32
from edgeq.container.reader import File
from edgeq.models import architecture
from edgeq.runtime.session import Session

MUCH, LITTLE = 1.2, 0.8  # a perplexity that much higher, or fewer likeliest tokens the same, is said aloud


@dataclass(frozen=True)
class Loss:
    """What quantizing has cost.

    divergence  mean KL divergence in nats; `error`: its standard error
    same_top    share of positions where the likeliest token is the same one
    perplexity  of the text, over that of the exact model
    """

    divergence: float
    error: float
    same_top: float
    perplexity: float

    @property
    def large(self) -> bool:
        """Whether that is so much that one should not take it unawares."""
        return not (self.perplexity <= MUCH and self.same_top >= LITTLE)


class Probe:
    """Compares models with `file` at about `positions` of the token ids `sequences`, int32 [tokens] each. Keeps what
    goes into every stage, of a model that can be run in stages."""

    def __init__(
        self, file: File, sequences: Sequence[npt.NDArray[np.int32]], threads: int = 1, positions: int = 512
    ) -> None:
        self.file, self.threads, self.sequences = file, threads, sequences
        model = architecture(file.metadata["config"], file.path)
        self.layers, self._in_stages = model.num_hidden_layers, model.in_stages
        self._context = max(map(len, sequences))
        self._inputs: list[list[Any]] = [[np.asarray(one) for one in sequences]]  # of each stage, by sequence
        for stage in range(self.layers + 1 if self._in_stages else 0):
            self._inputs.append(self._run(file, range(stage, stage + 1), self._inputs[-1]))
        step = max(sum(map(len, sequences)) // positions, 1)
        self._positions = [np.arange(step - 1, len(one) - 1, step) for one in sequences]
        self._following = np.concatenate([one[at + 1] for one, at in zip(sequences, self._positions, strict=True)])
        self._exact = self._found(file, self.layers + 1)

    @property
    def positions(self) -> int:
        """At how many it is measured."""
        return len(self._following)

    def loss(self, other: File, first: int = 0) -> Loss:
        """That of a model which is the same before stage `first`."""
        found = self._found(other, first)
        divergences = np.sum(np.exp(self._exact) * (self._exact - found), axis=1, dtype=np.float64)
        at = np.arange(len(found)), self._following
        return Loss(
            float(divergences.mean()),
            float(divergences.std() / np.sqrt(len(found))),
            float((self._exact.argmax(1) == found.argmax(1)).mean()),
            float(np.exp(np.mean(self._exact[at] - found[at], dtype=np.float64))),
        )

    def _found(self, file: File, first: int) -> F32:
        """What `_results` gives, computed from stage `first` on; of a model that cannot be run in stages, all of it."""
        if not self._in_stages:
            return _logarithms(self._run(file, None, self.sequences, self._positions))
        rows = self._inputs[first]
        if first <= self.layers:
            rows = self._run(file, range(first, self.layers + 1), rows)
        return self._results(file, rows)

    def _run(
        self, file: File, stages: range | None, rows: Sequence[Any], kept: Sequence[Any] | None = None
    ) -> list[Any]:
        """What the stages make of each sequence's rows; of all, or of those at the positions `kept`."""
        found = []
        with Session(
            file, context=self._context, batch=self._context, threads=self.threads, kv="f16", stages=stages, force=True
        ) as session:
            for number, one in enumerate(rows):
                session.rewind(0)
                made = session.eval(one, all_logits=True)
                found.append(made if kept is None else made[kept[number]])
        return found

    def _results(self, file: File, rows: Sequence[F32]) -> F32:
        """Logarithms of probabilities at the chosen positions, f32 [positions, vocabulary]."""
        head = range(self.layers + 1, self.layers + 2)
        chosen = [one[at] for one, at in zip(rows, self._positions, strict=True)]
        return _logarithms(self._run(file, head, chosen))


def _logarithms(rows: Sequence[F32]) -> F32:
    """Of probabilities, one sequence after the other, of their logits."""
    logits = np.concatenate(rows)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    result: F32 = logits
    return result
