"""What a reference predicts, position by position, and how far a model's predictions are from it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeq.engine.model import Model
from edgeq.engine.shared_session import log_softmax
from edgeq.evaluate.texts import Chunk

F64 = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class Predicted(Protocol):
    """Predictions of a few positions: `nll` f64 [n] of the tokens that follow, `top` i64 [n] the likeliest tokens."""

    nll: F64
    top: Ids

    def divergence(self, other: F64) -> F64:
        """KL(these || other) in nats, f64 [n], of logarithms of probabilities f64 [n, vocab]."""


class Exact:
    """Predictions with every token's probability: `log` f64 [n, vocab], its logarithm."""

    def __init__(self, log: F64, nll: F64, top: Ids) -> None:
        self.log, self.nll, self.top = log, nll, top

    def divergence(self, other: F64) -> F64:
        result: F64 = (np.exp(self.log) * (self.log - other)).sum(axis=1)
        return result


def predictions(model: Model, chunk: Chunk, skip: int = 0) -> Iterator[Exact]:
    """A model's predictions of a chunk but for its first `skip` positions, PART at a time."""
    row = chunk.first + skip
    for logits in model.iter_logits(chunk.ids[:-1], row):
        following = np.array(chunk.ids[row + 1 : row + 1 + len(logits)], np.int64)
        log = log_softmax(logits)
        yield Exact(log, -log[np.arange(len(following)), following], log.argmax(axis=1))
        row += len(logits)


@dataclass
class Positions:
    """What was measured at each position, in the order of the text.

    nll    minus the natural logarithm of the probability of the token that follows
    base   the reference's; of the same length, or empty
    kl     KL(reference || model) in nats; empty without reference
    same   whether both find the same token likeliest; empty without reference
    chunk  number of the chunk
    """

    nll: list[F64] = field(default_factory=list)
    base: list[F64] = field(default_factory=list)
    kl: list[F64] = field(default_factory=list)
    same: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    chunk: list[Ids] = field(default_factory=list)

    def add(self, chunk: int, found: Exact, base: Predicted | None) -> None:
        self.nll.append(found.nll)
        self.chunk.append(np.full(len(found.nll), chunk))
        if base is not None:
            self.base.append(base.nll)
            self.kl.append(base.divergence(found.log))
            self.same.append(base.top == found.top)

    def select(self, chunks: Iterable[int] | None = None) -> "Measured":
        """All positions, or those of some chunks."""
        if not self.nll:
            empty = np.empty(0)
            return Measured(empty, empty, empty, empty.astype(bool), empty.astype(np.int64))
        numbers = np.concatenate(self.chunk)
        mask = np.ones(len(numbers), bool) if chunks is None else np.isin(numbers, list(chunks))
        held = [np.concatenate(part)[mask] if part else np.empty(0) for part in (self.nll, self.base, self.kl)]
        same = np.concatenate(self.same)[mask] if self.same else np.empty(0, bool)
        return Measured(held[0], held[1], held[2], same, numbers[mask])


@dataclass(frozen=True)
class Measured:
    """As Positions, each f64, bool or i64 [positions]."""

    nll: F64
    base: F64
    kl: F64
    same: npt.NDArray[np.bool_]
    chunk: Ids

    @property
    def delta_p(self) -> F64:
        """Change of the probability of the token that follows."""
        change: F64 = np.exp(-self.nll) - np.exp(-self.base)
        return change
