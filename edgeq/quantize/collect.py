"""Runs a model over sequences of tokens, and sums up what its matrices read.

Each sum is one thread's, row after row in float64, so that the same bits come out whatever the number of threads. A
batch is as large as the rows kept of it have room, which the model alone decides. The head is not run: what it would
read is the result of a session of states, and gives the perplexity at a part of the positions.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError, UsageError
from edgeq.models import Architecture, architecture
from edgeq.models.composition import Model
from edgeq.quantize.calibration import Calibration, Corpus, F32Array, I32Array, Subject
from edgeq.quantize.head_loss import Positions
from edgeq.quantize.reads import inputs, routers
from edgeq.quantize.sums import Sums
from edgeq.runtime.fit import available_memory
from edgeq.runtime.program import BATCH
from edgeq.runtime.session import Session
from edgeq.system.output import write_file

TAP_BYTES = 256 << 20  # of rows kept of a batch
STEP = 32  # batches are multiples of it
SAVE_S = 30.0  # between two states that are saved
FORM = 2  # of a state that is saved: another one's is begun anew

Progress = Callable[[str, int, int], None]  # the corpus at work, tokens done, tokens in all


@dataclass(frozen=True)
class Passage:
    """Tokens that the model reads from position 0 on, of the corpus of that name."""

    corpus: str
    tokens: Sequence[int]


def calibrate(
    file: File,
    passages: Sequence[Passage],
    *,
    name: str = "",
    threads: int | None = None,
    gram: Collection[str] = (),
    state: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Calibration:
    """Run `file`, best one of float weights, over `passages`; what its matrices read.

    name:     of the model, for people
    threads:  default EDGEQ_THREADS or the cores worth using; they change no bit of the result
    gram:     patterns (`blk.*.attn_q.weight`) of further matrices whose Gram matrix is wanted; the head's is always
    state:    a file for what is done so far, written now and then. Where it is there already, of the same model and
              passages, they are gone on with. Whoever gave it removes it, once the result is safe
    progress: hears after every passage the corpus's name, tokens done, tokens in all
    announce: hears a line if kernels must be compiled first, or if work that was begun is gone on with
    Raises UsageError for passages that are empty or not of this model's tokens and for a pattern that is no matrix's,
    MemoryLimitError for what does not fit in memory, EdgeqError where the model computes no finite numbers.
    """
    if not passages or not all(len(passage.tokens) for passage in passages):
        raise UsageError(f"{file.path}: there is no text to calibrate it with: give some")
    model = architecture(file.metadata["config"], file.path)
    groups = inputs(model, file)
    taps = [name for group in groups for name in group]
    tokens = [np.asarray(passage.tokens, np.int32) for passage in passages]
    names = list(dict.fromkeys(passage.corpus for passage in passages))
    origins = np.array([names.index(passage.corpus) for passage in passages], np.int32)
    longest = max(map(len, tokens))
    batch = _batch(groups, file)
    with Session(
        file, context=longest, threads=threads, batch=batch, states=True, taps=taps, announce=announce
    ) as session:
        run = _Run(file, model, session, groups, gram, tokens)
        if state and run.restore(state) and announce:
            announce(f"{run.done} of {len(tokens)} sequences are done already: going on there")
        saved, total = time.monotonic(), sum(map(len, tokens))
        before = sum(map(len, tokens[: run.done]))
        for i in range(run.done, len(tokens)):
            run.add(tokens[i], int(origins[i]))
            before += len(tokens[i])
            if progress:
                progress(passages[i].corpus, before, total)
            if state and time.monotonic() - saved > SAVE_S:
                run.save(state)
                saved = time.monotonic()
        perplexities = run.perplexities(len(names))
    counts = np.bincount(origins, [len(one) for one in tokens], len(names)).astype(int)
    corpora = tuple(map(Corpus, names, counts.tolist(), perplexities))
    subject = Subject.of(model, name)
    return Calibration(file.path, run.matrices(), subject, tuple(tokens), origins, corpora, longest)


def _batch(groups: Sequence[Sequence[str]], file: File) -> int:
    """Tokens of a pass: as many as TAP_BYTES have room for."""
    nbytes = 4 * sum(file.tensors[names[0]].shape[-1] for names in groups)
    return min(max(TAP_BYTES // nbytes // STEP * STEP, STEP), BATCH)


class _Run:
    """A session, and the sums over what it has shown; `done` sequences are in them."""

    def __init__(
        self,
        file: File,
        model: Architecture,
        session: Session,
        groups: Sequence[Sequence[str]],
        gram: Collection[str],
        tokens: list[I32Array],
    ) -> None:
        self.done = 0
        self._file, self._session = file, session
        self._head = model.head if isinstance(model, Model) else None
        head = [f"{self._head.matrix.name}.weight"] if self._head else []
        matching = _matching(gram, [name for names in (*groups, head) for name in names], file.path)
        known = routers(model, file)
        self._sums: dict[str, Sums] = {}  # by the first name
        for names in (*groups, *([head] if head else [])):
            router = next((known[name] for name in names if name in known), None)
            products = {name for name in names if name in matching or name in head}
            self._sums[names[0]] = Sums(names, file.tensors[names[0]].shape[-1], products, router)
        self._check_memory(file.path)
        self._states = self._sums.get(head[0]) if head else None
        self._positions = Positions(file.tensors[head[0]].shape[-1], len(tokens)) if head else None
        digest = hashlib.sha256(repr([FORM, sorted(matching), list(map(len, tokens))]).encode())
        digest.update(json.dumps(file.metadata["config"], sort_keys=True).encode())
        digest.update(repr([(info.name, info.type, info.shape, info.crc32) for info in file.tensors.values()]).encode())
        for one in tokens:
            digest.update(one.tobytes())
        self._key = digest.hexdigest()

    def _check_memory(self, source: str) -> None:
        needed = sum(array.nbytes for sums in self._sums.values() for array in sums.state.values())
        if needed > available_memory():
            raise MemoryLimitError(
                f"{source}: the sums take {needed / 1e9:.1f} GB, there are {available_memory() / 1e9:.1f} GB free: "
                "ask for fewer Gram matrices"
            )

    def add(self, tokens: I32Array, corpus: int) -> None:
        """Run over a sequence, and add what was read."""
        position = 0

        def tapped(name: str, x: F32Array) -> None:
            nonlocal position
            if name in self._sums:  # once for all that read the same
                shown.append((self._sums[name], x))
            if len(shown) == self._shown:
                list(pool.map(lambda one: one[0].add(one[1], position), shown))
                position += len(x)
                shown.clear()

        shown: list[tuple[Sums, F32Array]] = []
        with ThreadPoolExecutor(self._session.threads) as pool:
            self._session.rewind(0)
            states = self._session.eval(tokens.tolist(), all_logits=True, tapped=tapped)
        if self._states is not None and self._positions is not None:
            self._states.add(states)
            self._positions.add(corpus, states, tokens.astype(np.int64))
        self.done += 1

    @property
    def _shown(self) -> int:
        """How many sums a batch is added to."""
        return len(self._sums) - (self._states is not None)

    def perplexities(self, corpora: int) -> list[float]:
        """Of each corpus, NaN of a model without a head."""
        if self._head is None or self._positions is None:
            return [float("nan")] * corpora
        return self._positions.perplexities(self._file, self._head, corpora)

    def matrices(self) -> dict[str, Any]:
        """The statistics of all matrices."""
        return {name: one for sums in self._sums.values() for name, one in sums.statistics().items()}

    def _state(self) -> dict[str, npt.NDArray[Any]]:
        return {f"{first}/{key}": array for first, sums in self._sums.items() for key, array in sums.state.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all sums, whole or not at all."""
        content = io.BytesIO()
        kept = {f"positions/{key}": array for key, array in self._positions.state.items()} if self._positions else {}
        arrays: dict[str, Any] = {"key": np.array(self._key), "done": np.array(self.done), **self._state(), **kept}
        np.savez(content, **arrays)
        write_file(path, content.getvalue())

    def restore(self, path: str | os.PathLike[str]) -> bool:
        """Go on with what `save` wrote; False, and nothing changes, where that is of something else or unreadable."""
        try:
            with np.load(Path(path), allow_pickle=False) as found:
                if str(found["key"]) != self._key:
                    return False
                arrays = {name: found[name] for name in found.files}
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return False
        for name, array in self._state().items():
            array[...] = arrays[name]
        if self._positions:
            self._positions.restore(arrays["positions/states"], arrays["positions/next"])
        self.done = int(arrays["done"])
        return True


def _matching(patterns: Collection[str], names: Sequence[str], source: str) -> set[str]:
    """The names that a pattern matches. UsageError for one that matches none."""
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            raise UsageError(f"{source}: no matrix is called {pattern!r}: give a name as {names[0]}, or a pattern")
        found |= matching
    return found
