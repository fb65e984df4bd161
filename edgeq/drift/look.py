"""Runs a model over a part of a text, and shows what its matrices read there."""

from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from edgeq.container.reader import File
from edgeq.errors import EdgeqError
from edgeq.runtime.program import Part
from edgeq.runtime.session import Session

LENGTH = 32  # tokens of a text that are looked at, at most
LEAST = 8  # of a text with fewer nothing is said
POSITIONS = 16  # the last ones of these tell the perplexity
STEP = 2  # one of so many rows is in the sample, but not the first of a text, which is like no other

F32Array = npt.NDArray[np.float32]
Shown = Callable[[str, F32Array, F32Array], None]


def sampled(tokens: int) -> int:
    """How many rows of a text of so many tokens are in the sample."""
    return len(range(1, tokens - 1, STEP))


class Looker:
    """A program of its own over the file's weights, with the inputs of the matrices `names` shown. Raises as `Session`
    does."""

    def __init__(
        self,
        file: File,
        names: Collection[str],
        threads: int | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._session = Session(file, context=LENGTH, batch=LENGTH, threads=threads, taps=names, announce=announce)

    def look(self, tokens: Sequence[int] | npt.NDArray[np.int32], shown: Shown) -> float:
        """Run over the first LENGTH tokens, of at least LEAST. The mean loss at the last POSITIONS, in nats.

        `shown(name, every, sample)` hears of each matrix what it read, f32 [rows, columns] both: all rows but the first
        of the text, and a sample of them, which are there until it returns. Tokens are in the vocabulary; EdgeqError
        where the model computes no finite numbers.
        """
        ids = np.asarray(tokens, np.int64)[:LENGTH]
        rows, wanted = len(ids) - 1, min(POSITIONS, len(ids) // 2)
        session = self._session
        session.rewind(0)

        def tapped(name: str, x: F32Array) -> None:
            shown(name, x[1:], x[1::STEP])

        part = Part(session.sequence, ids[:-1], range(rows - wanted, rows))
        logits = session.program.step([part], tapped)[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise EdgeqError(f"{session.file.path}: the model computed no finite numbers: `edgeq verify` may tell why")
        logits -= logits.max(1, keepdims=True)
        right = logits[np.arange(wanted), ids[-wanted:]]
        return float(np.mean(np.log(np.exp(logits).sum(1)) - right))

    def close(self) -> None:
        """Free what it takes."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
