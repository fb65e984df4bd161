"""A session: one file, one KV cache, one team of threads. Token ids in, logits or last states out."""

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeq.blocks.table import block_type
from edgeq.container.reader import File
from edgeq.errors import ContextError, EdgeqError, UsageError
from edgeq.graph.aligned import round_up
from edgeq.graph.plan import FIRST_OUTPUT, OUTPUTS, POSITION, TOKENS
from edgeq.kernels.layout import KV_BYTES
from edgeq.models import Architecture, architecture
from edgeq.runtime.compiler import Compiler
from edgeq.runtime.fit import POSITIONS, Fit, available_memory
from edgeq.runtime.team import Team, team_size

BATCH = 512  # tokens per pass of a prompt
OUTPUT_ROWS = 16  # rows of logits per pass
DEFAULT_CONTEXT = 4096
Tapped = Callable[[str, npt.NDArray[np.float32]], None]


class Session:
    """Evaluates tokens one after the other; what has been evaluated is in the KV cache, up to `position`.

    context: positions to reserve; by default as many as the model was trained for, at most 4096
    threads: default EDGEQ_THREADS or the cores worth using
    kv:      element of the KV cache, "f16", "q8_0" or "f32"; by default f32 for a file of F32 weights, else f16
    states:  what `eval` gives is what the head would read, f32 [., hidden size]; for every token with `all_logits`.
             A model whose tokens see those after them has no head, and takes a text only as a whole
    rows:    `eval` takes f32 rows [tokens, hidden size] in place of token ids, which stand for their embeddings
    taps:    names of matrices, as `blk.0.attn_q.weight`, whose f32 input `eval` shows, batch by batch; with a `+`
             after it, what the result of the matrix is added to
    stages:  those of the model that are run, 0 the embedding, 1 to n the layers, n + 1 the head: `eval` takes rows if
             that leaves out the embedding, and gives what the next stage would read if it leaves out the head
    only_taps: leave out what comes after the last tap, whose rows are then the result
    force:   try also where the memory there is seems too small
    announce: hears a line if kernels must be compiled first, or if the context is beyond the model's own
    Raises UnsupportedError, FormatError for a file it cannot run, UsageError for impossible arguments,
    MemoryLimitError for what does not fit in memory. Not for two threads at a time.
    """

    def __init__(
        self,
        file: File,
        *,
        context: int | None = None,
        threads: int | None = None,
        kv: str | None = None,
        batch: int = BATCH,
        states: bool = False,
        rows: bool = False,
        taps: Collection[str] = (),
        stages: range | None = None,
        only_taps: bool = False,
        force: bool = False,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self.model = architecture(file.metadata["config"], str(file.path))
        self.file = file
        if context is not None and context < 1:
            raise UsageError(f"a context of {context} positions cannot work: give at least 1")
        trained = self.model.max_position_embeddings
        self.context = context or default_context(self.model)
        if self.context > trained and announce:
            announce(f"a context of {self.context} is beyond the {trained} positions that the model was trained for")
        self.threads = team_size(threads)
        self.kv = kv or kv_for(file)
        if self.kv not in KV_BYTES:
            raise UsageError(f"a KV cache of {self.kv} is unknown: give one of {', '.join(KV_BYTES)}")
        if batch < 1:
            raise UsageError(f"batches of {batch} tokens cannot work: give at least 1")
        run = range(self.model.num_hidden_layers + 2) if stages is None else stages
        if not run or run.step != 1 or run.start < 0 or run.stop > self.model.num_hidden_layers + 2:
            raise UsageError(f"stages must be within 0 to {self.model.num_hidden_layers + 1}, these are {run}")
        if only_taps and not taps:
            raise UsageError("a session of taps only needs the names of these")
        rows = rows or 0 not in run
        self.states = states or only_taps or run[-1] <= self.model.num_hidden_layers or not self.model.heads.causal
        self.batch = min(batch, self.context) if self.model.heads.causal else self.context
        if isinstance(taps, str):
            raise UsageError(f"taps must be a list of names, as [{taps!r}]")
        fit = Fit(file, self.model, self.kv, self.batch, OUTPUT_ROWS, self.threads, rows, taps)
        if not force:
            fit.check(self.context, available_memory())
        self.team = Team(self.threads)
        positions = round_up(self.context, POSITIONS)
        compiler = Compiler(
            file,
            self.model,
            positions,
            self.batch,
            OUTPUT_ROWS,
            self.threads,
            self.kv,
            self.states,
            rows=rows,
            taps=taps,
            stages=stages,
            only_taps=only_taps,
            control=self.team.control,
        )
        self.plan = compiler.compile(announce)
        self.team.start()
        self.position = 0
        self._reached = 0  # positions that the caches were given since there were none
        self._busy = threading.Lock()
        self._closed = False

    def eval(
        self,
        tokens: Sequence[int] | npt.NDArray[np.float32],
        all_logits: bool = False,
        tapped: Tapped | None = None,
    ) -> npt.NDArray[np.float32]:
        """Append `tokens`, ids or `rows`; logits of the last one, f32 [1, vocab], or of each, [tokens, vocab].

        `tapped(name, x)` hears after every batch what each tapped matrix read, f32 [tokens, columns], which is there
        until it returns; of the head that is the rows whose logits were asked for.

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
            return self._eval(items, all_logits, tapped)

    def _eval(self, items: npt.NDArray[Any], all_logits: bool, tapped: Tapped | None) -> npt.NDArray[np.float32]:
        before = self.position
        step = min(self.batch, OUTPUT_ROWS) if all_logits and not self.states else self.batch
        results: list[npt.NDArray[np.float32]] = []
        for first in range(0, len(items), step):
            chunk = items[first : first + step]
            outputs = len(chunk) if all_logits else int(first + step >= len(items))
            result = self._forward(chunk, outputs)
            results = [*results, result] if all_logits else [result]
            if tapped is not None:
                self._show_taps(tapped, len(chunk), outputs)
        result = results[0] if len(results) == 1 else np.concatenate(results)
        if not np.isfinite(result).all():
            self.rewind(self.rewindable(before))
            raise EdgeqError(self._not_finite())
        return result

    def _not_finite(self) -> str:
        """Why results may be no finite numbers, and what to do."""
        if any(cache.overflowed() for cache in self.plan.caches):
            return (
                f"{self.file.path}: its keys or values are past the range of a KV cache of {self.kv}: "
                'load it with --kv f32 (kv="f32" in Python)'
            )
        return (
            f"{self.file.path}: the model computed no finite numbers: `edgeq verify` tells whether the file is "
            "damaged; if it is not, its weights are"
        )

    def _show_taps(self, tapped: Tapped, tokens: int, outputs: int) -> None:
        for name, (rows, of_outputs) in self.plan.taps.items():
            tapped(name, rows[: outputs if of_outputs else tokens])

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

    def _forward(self, items: npt.NDArray[Any], outputs: int) -> npt.NDArray[np.float32]:
        """One walk of the tape over ids or rows; logits of the last `outputs` tokens."""
        plan, tokens = self.plan, len(items)
        if plan.rows is None:
            plan.tokens[:tokens] = items
        else:
            plan.rows[:tokens] = items
        plan.params[TOKENS], plan.params[POSITION] = tokens, self.position
        plan.params[OUTPUTS], plan.params[FIRST_OUTPUT] = outputs, tokens - outputs
        self._reached = max(self._reached, self.position + tokens)  # first, as an interrupt may come after the pass
        self.team.run(plan.tape.ctypes.data, plan.steps)
        self.position += tokens
        first = tokens - outputs if self.states else 0  # there is a state of every token
        return plan.logits[first : first + outputs].copy()

    def rewind(self, position: int) -> None:
        """Forget everything from `position` on. Raises UsageError where `rewindable` says that it cannot."""
        if not 0 <= position <= self.position:
            raise UsageError(f"cannot rewind to position {position}: {self.position} are evaluated")
        if self.rewindable(position) != position:
            raise UsageError(
                f"cannot rewind to position {position}: what it sees was overwritten, as layers keep little more than "
                "their window: rewind to 0 and evaluate all again"
            )
        self.position = position
        if position == 0:
            self._reached = 0

    def rewindable(self, position: int) -> int:
        """Where a session that shall go on from `position`, which it has evaluated, can go on: there, or at 0.

        The latest kv_cache.REWIND positions can be forgotten at any time, more by models without a window.
        """
        return position if all(cache.holds(position, self._reached) for cache in self.plan.caches) else 0

    def memory(self) -> dict[str, int]:
        """Bytes: `weights` (mapped, shared between processes), `kv` and `scratch` (reserved; touched as needed)."""
        return {"weights": self.file.nbytes, "kv": self.plan.kv_bytes, "scratch": self.plan.scratch_bytes}

    def close(self) -> None:
        """Stop the threads and free the memory. Nothing can be evaluated afterwards."""
        with self._busy:  # a pass that is running ends first
            self._closed = True
            self.team.close()
            self.plan.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def fit_of(file: File, threads: int, kv: str | None = None) -> Fit:
    """What a session with the usual options needs, or with another KV cache.

    Raises UnsupportedError, FormatError for a file it cannot run.
    """
    model = architecture(file.metadata["config"], str(file.path))
    batch = BATCH if model.heads.causal else default_context(model)  # all of a text at once
    return Fit(file, model, kv or kv_for(file), batch, OUTPUT_ROWS, threads)


def default_context(model: Architecture) -> int:
    """Positions of a session that asks for none: what the model was trained for, at most 4096."""
    return min(model.max_position_embeddings, DEFAULT_CONTEXT)


def kv_for(file: File) -> str:
    """f32 where every matrix is F32: such a file is there for exactness."""
    types = {info.type for info in file.tensors.values() if len(info.shape) > 1}
    return "f32" if types == {block_type("F32").name} else "f16"
