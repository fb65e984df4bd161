"""A session: a program and one sequence. Token ids in, logits or last states out."""

import threading
from collections.abc import Sequence
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from edgeq.container.reader import File
from edgeq.errors import ContextError, EdgeqError, UsageError
from edgeq.graph.plan import Plan
from edgeq.runtime.program import F32, Options, Part, Program, Tapped
from edgeq.runtime.team import Team


class Session:
    """Evaluates tokens one after the other; what has been evaluated is in the KV cache, up to `position`.

    Options are those of `Program`, which raises for those that cannot work. Not for two threads at a time.
    """

    def __init__(self, file: File, **options: Unpack[Options]) -> None:
        self.program = program = Program(file, **options)
        self.sequence = program.sequence()
        self.file, self.model = file, program.model
        self.context, self.batch = program.context, program.batch
        self.threads, self.kv, self.states = program.threads, program.kv, program.states
        self._busy = threading.Lock()
        self._closed = False

    @property
    def plan(self) -> Plan:
        """The program's."""
        return self.program.plan

    @property
    def team(self) -> Team:
        """The program's."""
        return self.program.team

    @property
    def position(self) -> int:
        """How many tokens are evaluated."""
        return self.sequence.position

    def eval(
        self,
        tokens: Sequence[int] | npt.NDArray[np.float32],
        all_logits: bool = False,
        tapped: Tapped | None = None,
        types: Sequence[int] | None = None,
        across: int = 1,
    ) -> npt.NDArray[np.float32]:
        """Append `tokens`, ids or `rows`; logits of the last one, f32 [1, vocab], or of each, [tokens, vocab].

        `types` are one per token, below the model's `token_types`; a model that knows none passes over them. `across`
        is how many rows an image's grid has in a line, of a model that knows such grids.
        `tapped(name, x)` hears after every batch what each tapped matrix read, f32 [tokens, columns], which is there
        until it returns; of the head that is the rows whose logits were asked for, a few at a time.

        Raises ContextError if they do not fit in the context, UsageError for ids that are not in the vocabulary, for
        a closed session and for one that another thread is using, EdgeqError for results that are no finite numbers;
        then nothing was appended.
        """
        if self._busy.locked():
            raise UsageError("the model is in use by another thread: load it once for each, the weights are shared")
        with self._busy:  # no interrupt comes between the lock and `with`, as one could after acquire()
            if self._closed:
                raise UsageError("the model is closed: load it again")
            items = self._items(tokens)
            self._check(items)
            return self._eval(items, all_logits, tapped, self._types(types, len(items)), across)

    def _eval(
        self,
        items: npt.NDArray[Any],
        all_logits: bool,
        tapped: Tapped | None,
        types: npt.NDArray[np.int64] | None,
        across: int,
    ) -> F32:
        before = self.position
        results: list[F32] = []
        for first in range(0, len(items), self.batch):
            chunk = items[first : first + self.batch]
            end = len(chunk)
            wanted = range(0 if all_logits else end - (first + end == len(items)), end)
            kinds = None if types is None else types[first : first + self.batch]
            result = self.program.step([Part(self.sequence, chunk, wanted, kinds, across=across)], tapped)[0]
            results = [*results, result] if all_logits else [result]
        result = results[0] if len(results) == 1 else np.concatenate(results)
        if not np.isfinite(result).all():
            error = self.program.not_finite(self.sequence)
            self.sequence.trim(before)
            raise EdgeqError(error)
        return result

    def _check(self, items: npt.NDArray[Any]) -> None:
        tokens = len(items)
        if tokens == 0:
            raise UsageError("there are no tokens to evaluate: give at least one")
        if self.position > 0 and not self.model.heads.causal:
            raise UsageError("a text whose tokens see one another cannot be continued: rewind to 0 and give it whole")
        if self.position + tokens > self.context:
            raise ContextError(
                f"{tokens} tokens after {self.position} do not fit in a context of {self.context} positions: "
                "shorten the prompt or ask for a larger context"
            )
        if self.plan.rows is None and (items.min() < 0 or items.max() >= self.model.vocab_size):
            raise UsageError(f"token ids must lie between 0 and {self.model.vocab_size - 1}")
        if self.plan.rows is not None and not np.isfinite(items).all():
            raise UsageError("rows must be finite numbers")

    def _types(self, types: Sequence[int] | None, tokens: int) -> npt.NDArray[np.int64] | None:
        """int64 [tokens]. UsageError if they are not one per token, or not the model's."""
        if types is None or not self.model.token_types:
            return None
        found = np.asarray(types, np.int64)
        if found.shape != (tokens,) or found.min() < 0 or found.max() >= self.model.token_types:
            raise UsageError(f"types must be one per token, each between 0 and {self.model.token_types - 1}")
        return found

    def _items(self, tokens: Sequence[int] | npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Ids int64 [tokens] or rows f32 [tokens, width]. UsageError if they are none."""
        if self.plan.rows is not None:
            rows, width = np.asarray(tokens, np.float32), self.plan.rows.shape[1]
            if rows.ndim != 2 or rows.shape[1] != width:
                raise UsageError(f"rows must be [tokens, {width}], these are {list(rows.shape)}")
            return rows
        ids = np.asarray(tokens)
        if ids.size and ids.dtype.kind not in "iu":
            raise UsageError("token ids must be integers; a session takes rows if it is made with rows=True")
        return ids.astype(np.int64).reshape(-1)

    def rewind(self, position: int) -> None:
        """Forget everything from `position` on. Raises UsageError where `rewindable` says that it cannot."""
        if not 0 <= position <= self.position:
            raise UsageError(f"cannot rewind to position {position}: {self.position} are evaluated")
        if self.rewindable(position) != position:
            raise UsageError(
                f"cannot rewind to position {position}: what it sees was given up, as layers keep little more than "
                f"their window, or a state: rewind to {self.rewindable(position)} and evaluate the rest again"
            )
        self.sequence.trim(position)

    def rewindable(self, position: int) -> int:
        """Where a session that shall go on from `position`, which it has evaluated, can go on: there, or before.

        The latest pages.REWIND positions can be forgotten at any time, more by models without a window. Models with
        recurrent layers go back to a checkpoint.
        """
        return self.sequence.reachable(position)

    def memory(self) -> dict[str, int]:
        """Bytes: `weights` (mapped, shared between processes), `kv` and `scratch` (reserved; touched as needed)."""
        return self.program.memory()

    def close(self) -> None:
        """Hand back the threads and free the memory. Nothing can be evaluated afterwards."""
        with self._busy:  # a pass that is running ends first
            self._closed = True
            self.program.close()
            self.sequence.states = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
