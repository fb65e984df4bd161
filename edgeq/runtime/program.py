"""A program: a compiled model that any number of sequences run through, several of them in one pass."""

import threading
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from edgeq.blocks.table import block_type
from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError, UsageError
from edgeq.graph import pages
from edgeq.graph.aligned import round_up
from edgeq.graph.row_tables import OUTPUTS, RUNS, TOKENS
from edgeq.kernels.layout import ATTENTION_BLOCK, KV_BYTES, MOST_RUNS, SPLIT_RUNS, STEP_WORDS
from edgeq.models import Architecture, architecture
from edgeq.runtime.compiler import Compiler
from edgeq.runtime.fit import BY_ROW, POSITIONS, Fit, available_memory, resident
from edgeq.runtime.mixed_text import Given, ends
from edgeq.runtime.pool import Pool
from edgeq.runtime.recurrent import Recurrent
from edgeq.runtime.sequence import Sequence
from edgeq.runtime.states import Pages
from edgeq.runtime.team import Team, team_size

BATCH = 512  # tokens per pass of a prompt
OUTPUT_ROWS = 16  # rows of logits at a time
DEFAULT_CONTEXT = 4096
MOST_TEXTS = 8  # that there is room for unasked
F32 = npt.NDArray[np.float32]
Tapped = Callable[[str, F32], None]


class Options(TypedDict, total=False):
    """How a model is compiled.

    context: positions that a sequence can have; 0 is as many as the model was trained for, None the same, at most 4096
    threads: default EDGEQ_THREADS or the cores worth using
    kv:      element of the KV cache, "f16", "q8_0" or "f32"; by default f32 for a file of F32 weights, else f16
    batch:   most rows of a pass
    states:  results are what the head would read, f32 [., hidden size]. A model whose tokens see those after them has
             no head, and takes a text only as a whole
    rows:    f32 rows [tokens, hidden size] are given in place of token ids, which stand for their embeddings
    taps:    names of matrices, as `blk.0.attn_q.weight`, whose f32 input is shown, pass by pass; with a `+` after it,
             what the result of the matrix is added to
    stages:  those of the model that are run, 0 the embedding, 1 to n the layers, n + 1 the head: rows are given if
             that leaves out the embedding, and results are what the next stage would read if it leaves out the head
    only_taps: leave out what comes after the last tap, whose rows are then the result
    texts:   sequences that fill the context for whose states there is room at once; None takes as many as need a
             quarter of the memory there is, 1 to 8
    force:   try also where the memory there is seems too small
    announce: hears a line if kernels must be compiled first, or if the context is beyond the model's own
    model:   in place of what the file's configuration says
    """

    context: int | None
    threads: int | None
    kv: str | None
    batch: int
    states: bool
    rows: bool
    taps: Collection[str]
    stages: range | None
    only_taps: bool
    texts: int | None
    force: bool
    announce: Callable[[str], None] | None
    model: Architecture | None


class Part(NamedTuple):
    """What a pass adds to a sequence.

    items: token ids int64 [rows], or f32 [rows, width] for a program of rows; at least one
    wanted: the numbers of those, in their order, whose results are wanted
    types: int64 [rows], of a model that knows types of tokens; those of None are all 0
    given: the rows of those items that are keys of such (mixed_text.py); of a model with Heads.whole_images all that
        follow one another in a block are in one part
    across: how many columns the grid has in which the rows lie, one below the other, of a model that asks for places
    """

    sequence: Sequence
    items: npt.NDArray[Any]
    wanted: range | list[int]
    types: npt.NDArray[np.int64] | None = None
    given: Given | None = None
    across: int = 1


class Program:
    """A model compiled as `Options` say: the tape of a pass, and buffers that all sequences use in turn.

    budget: bytes that the states of all sequences take at most, by default what `texts` says
    Raises UnsupportedError, FormatError for a file it cannot run, UsageError for impossible arguments,
    MemoryLimitError for what does not fit in memory. Threads take turns, pass by pass.
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
        texts: int | None = 1,
        force: bool = False,
        announce: Callable[[str], None] | None = None,
        budget: int | None = None,
        model: Architecture | None = None,
    ) -> None:
        self.model = model or architecture(file.metadata["config"], str(file.path))
        self.file = file
        if context is not None and context < 0:
            raise UsageError(f"a context of {context} positions cannot work: give at least 1, or 0 for all")
        trained = self.model.max_position_embeddings
        self.context = context_of(self.model, context)
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
        self.states = states or only_taps or run[-1] <= self.model.num_hidden_layers or not self.model.writes_text
        if self.model.heads.whole_images:
            batch = max(batch, self.model.heads.whole_images + 1)  # beside another text's next token
        self.batch = min(batch, self.context) if self.model.heads.causal else self.context
        if isinstance(taps, str):
            raise UsageError(f"taps must be a list of names, as [{taps!r}]")
        self.force, self.announce = force, announce
        fit = Fit(file, self.model, self.kv, self.batch, OUTPUT_ROWS, self.threads, rows, taps)
        if not force:
            fit.check(self.context, available_memory())
        self.team = Team(self.threads)
        self.positions = round_up(self.context, POSITIONS)
        compiler = Compiler(
            file,
            self.model,
            self.positions,
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
            asked=self.context,
        )
        self.plan = compiler.compile(announce)
        file.check()
        self._tape = int(self.plan.tape.ctypes.data)
        self.team.start()
        self._by_row = [name for name in BY_ROW if name in file.tensors]
        self.pool = Pool(self._room(texts, force) if budget is None else budget)
        self._passing = threading.Lock()

    def _room(self, texts: int | None, force: bool) -> int:
        """Bytes for the states of so many texts."""
        one = self.sequence_bytes
        if texts == 1 or one == 0:
            return one
        left = available_memory() - resident(self.file)
        if texts is None:
            texts = min(MOST_TEXTS, max(1, left // 4 // one))
        if texts < 1:
            raise UsageError(f"room for {texts} texts cannot work: give at least 1")
        if texts > 1 and texts * one > left and not force:
            raise MemoryLimitError(
                f"{self.file.path}: {texts} texts of {self.context} positions need {texts * one >> 20} MiB beside the "
                f"model, and {max(0, left) >> 20} are available: give fewer, or a smaller context"
            )
        return texts * one

    @property
    def sequence_bytes(self) -> int:
        """What the states of a sequence take that fills the context."""
        return self.bytes_of(self.positions)

    def bytes_of(self, positions: int) -> int:
        """What the states of a sequence of so many take at most."""
        rows = len(self.plan.tables.positions)
        return sum(g.nbytes * pages.most_pages(g.window, positions, rows) for g in self.plan.groups)

    @property
    def kept_bytes(self) -> int:
        """What texts that nobody writes on may keep of the budget: at least one that fills the context, no more than
        half of what there is for several."""
        return max(self.sequence_bytes, self.pool.budget // 2)

    @property
    def free_bytes(self) -> int:
        """What states can still take, of the budget."""
        return self.pool.budget - self.pool.used

    def sequence(self) -> Sequence:
        """A new one, without tokens."""
        blocks = -(-self.positions // ATTENTION_BLOCK)
        kinds = [Recurrent if group.window == pages.RECURRENT else Pages for group in self.plan.groups]
        return Sequence([kind(group, self.pool, blocks) for kind, group in zip(kinds, self.plan.groups, strict=True)])

    def step(self, parts: list[Part], tapped: Tapped | None = None) -> list[F32]:
        """One pass: append to each sequence what its part says. Results of the rows wanted of each part, f32 [wanted,
        vocab] or [wanted, width]: the same bits whatever else there is in the pass.

        `tapped(name, x)` hears what each tapped matrix read, f32 [rows, columns], which is there until it returns; of
        the head that is the rows wanted, OUTPUT_ROWS at most at a time.

        Raises UsageError for parts that are too long together or name a sequence twice, MemoryLimitError if the budget
        has no room, FormatError where the file became shorter; then nothing was appended. What items are, and that they
        fit in the context, is the caller's to check.
        """
        with self._passing:
            self.team.check()
            wanted = self.enter(parts)
            ends = [part.sequence.passing(len(part.items)) for part in parts]
            result = self._run(int(self.plan.tables.counts[TOKENS]), wanted, tapped)
            self.file.check()
            for part, end in zip(parts, ends, strict=True):
                part.sequence.position = end
            for name in self._by_row:  # or the whole table would stay, row by row
                self.file.let_go(name)
        if len(parts) == 1:
            return [result]
        return np.split(result, np.cumsum([len(part.wanted) for part in parts])[:-1])

    def enter(self, parts: list[Part]) -> npt.NDArray[np.int64]:
        """Write what kernels read of a pass's rows, and make room for what these leave: now the tape can be walked. The
        rows that are wanted, the first of which the head would serve. Raises as `step` does."""
        plan, tables = self.plan, self.plan.tables
        rows = sum([len(part.items) for part in parts])
        if rows > self.batch or len(parts) > MOST_RUNS:
            raise UsageError(f"{rows} rows in {len(parts)} parts are too many for a pass: at most {self.batch}")
        if len(parts) > 1 and len({id(part.sequence) for part in parts}) < len(parts):
            raise UsageError("a sequence has two parts in a pass: give one")
        if tables.places is not None:
            for part in parts:
                _check_grid(part.sequence.position + len(part.items), part.across, tables.most_places)
        for part in parts:
            part.sequence.extend(len(part.items))
        first, wanted = 0, list[int]()
        for number, (sequence, items, which, types, given, across) in enumerate(parts):
            count, start = len(items), sequence.position
            here = slice(first, first + count)
            if tables.reach is not None:  # rows in place of ids are of no image
                tables.reach[here] = start + (ends(items) if plan.rows is None else np.arange(1, count + 1))
            if tables.given is not None:
                tables.given[here] = 0 if given is None else given.addresses(items)
                items = items if given is None else np.maximum(items, 0)
            (tables.tokens if plan.rows is None else plan.rows)[here] = items
            tables.positions[here] = start if count == 1 else np.arange(start, start + count)
            if tables.places is not None:
                tables.places[1, here], tables.places[0, here] = np.divmod(np.arange(start, start + count), across)
            if tables.types is not None:
                tables.types[here] = 0 if types is None else types
            for group, state in zip(plan.groups, sequence.states, strict=True):
                group.tables[here] = state.address
            place = number if count == 1 and len(parts) <= SPLIT_RUNS else -1
            tables.runs[number] = first, count, start, place
            wanted += [first + row for row in which]
            first += count
        tables.counts[TOKENS], tables.counts[RUNS] = rows, len(parts)
        every = np.array(wanted, np.int64)
        self._aim(every[: len(tables.outputs)])
        return every

    def _run(self, rows: int, wanted: npt.NDArray[np.int64], tapped: Tapped | None) -> F32:
        """Walk the tape; its head, which has room for OUTPUT_ROWS, as often as it takes."""
        plan, tables = self.plan, self.plan.tables
        if plan.head is None:
            self._walk(0, plan.steps)
            self._show(tapped, rows, False)
            return plan.logits[wanted]
        size = len(tables.outputs)
        chunks = [wanted[first : first + size] for first in range(0, len(wanted), size)]
        at_once = len(chunks) == 1
        if not at_once:
            self._walk(0, plan.head)
        results = []
        for chunk in chunks:
            self._aim(chunk)
            self._walk(0 if at_once else plan.head, plan.steps)
            self._show(tapped, len(chunk), True)
            results.append(plan.logits[: len(chunk)].copy())
        self._show(tapped, rows, False)
        return results[0] if at_once else np.concatenate([plan.logits[:0], *results])

    def _aim(self, wanted: npt.NDArray[np.int64]) -> None:
        """Let the head serve these rows."""
        tables = self.plan.tables
        tables.outputs[: len(wanted)], tables.counts[OUTPUTS] = wanted, len(wanted)

    def _walk(self, first: int, end: int) -> None:
        self.team.run(self._tape + 8 * STEP_WORDS * first, end - first)

    def _show(self, tapped: Tapped | None, count: int, outputs: bool) -> None:
        """So many rows of the taps, those of rows of logits or the others."""
        if tapped is not None:
            for name, (read, of_outputs) in self.plan.taps.items():
                if of_outputs == outputs:
                    tapped(name, read[:count])

    def not_finite(self, sequence: Sequence) -> str:
        """Why its results may be no finite numbers, and what to do."""
        if sequence.overflowed():
            return (
                f"{self.file.path}: its keys or values are past the range of a KV cache of {self.kv}: "
                'load it with --kv f32 (kv="f32" in Python)'
            )
        return (
            f"{self.file.path}: the model computed no finite numbers: its weights are damaged, or too large: download "
            "or convert it again"
        )

    def memory(self) -> dict[str, int]:
        """Bytes: `weights` (mapped, shared between processes), `kv` (of a text that fills the context) and `scratch`
        (reserved; touched as needed)."""
        return {"weights": self.file.nbytes, "kv": self.sequence_bytes, "scratch": self.plan.scratch_bytes}

    def close(self) -> None:
        """Hand back the threads and free the buffers. Nothing can be computed afterwards."""
        with self._passing:  # a pass that is running ends first
            self.team.close()
            self.plan.release()


def _check_grid(rows: int, across: int, most: int) -> None:
    if not 1 <= across <= most or -(-rows // across) > most:
        raise UsageError(f"{rows} rows in {across} columns do not fit: the model knows {most} places along a side")


def fit_of(file: File, threads: int, kv: str | None = None) -> Fit:
    """What a program with the usual options needs, or with another KV cache.

    Raises UnsupportedError, FormatError for a file it cannot run.
    """
    model = architecture(file.metadata["config"], str(file.path))
    batch = BATCH if model.heads.causal else default_context(model)  # all of a text at once
    return Fit(file, model, kv or kv_for(file), batch, OUTPUT_ROWS, threads)


def context_of(model: Architecture, asked: int | None) -> int:
    """Positions of a sequence, as they are asked for; 0 asks for all that the model was trained for."""
    return default_context(model) if asked is None else asked or model.max_position_embeddings


def default_context(model: Architecture) -> int:
    """Positions of a sequence where nothing else is asked for: what the model was trained for, at most 4096."""
    return min(model.max_position_embeddings, DEFAULT_CONTEXT)


def kv_for(file: File) -> str:
    """f32 where every matrix is F32: such a file is there for exactness."""
    types = {info.type for info in file.tensors.values() if len(info.shape) > 1}
    return "f32" if types == {block_type("F32").name} else "f16"
