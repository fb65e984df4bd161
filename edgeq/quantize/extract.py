"""What a file that was made with a calibration says of it: `drift/seen.py` has what, and compares it later.

The file itself is run over parts of the calibration's texts, as its matrices read something else than those of
the model that was calibrated: rounding, and scales that were folded into them, change it.
"""

import os
from collections.abc import Sequence

import numpy as np

from edgeq.container.reader import File
from edgeq.container.writer import TensorSpec, Writer
from edgeq.drift.bins import F64, I64, Histograms, counts_between, spread_of
from edgeq.drift.look import LEAST, LENGTH, Looker
from edgeq.drift.seen import ASSET, Input, Seen, Slice, Tokens, directed
from edgeq.models import architecture
from edgeq.quantize.calibration import Calibration, F32Array, I32Array
from edgeq.quantize.reads import inputs
from edgeq.quantize.sketch import ASCENDING, BINS, Sketch, bin_counts

TEXTS = 128  # that are looked at, at most
BINS_OF_VALUES, BINS_OF_DIRECTIONS, BINS_OF_TOKENS = 20, 8, 20
LISTED = 512  # tokens that are not in the last bin

Sequences = Sequence[I32Array]


def extract(file: File, calibration: Calibration, threads: int) -> Seen | None:
    """What `file` reads of a calibration's text; None where that has none, or the model writes no text. The result does
    not depend on `threads`. Raises as `Session` does."""
    model = architecture(file.metadata["config"], file.path)
    start, texts, origins = _parts(calibration)
    if not texts or not model.heads.causal:
        return None
    names = [group[0] for group in inputs(model, file)]
    read = {name: _Read() for name in names}

    def shown(name: str, every: F32Array, sample: F32Array) -> None:
        read[name].add(every, sample)

    losses = []
    with Looker(file, names, threads) as looker:
        for text in texts:
            for one in read.values():
                one.begin()
            losses.append(looker.look(text, shown))
    tokens = _tokens(calibration.sequences, texts)
    slices = _slices(calibration, tokens, np.array(losses), origins)
    return Seen(len(texts), LENGTH, start, {name: one.input() for name, one in read.items()}, tokens, slices)


def finished(file: File, out: str | os.PathLike[str], seen: Seen) -> None:
    """Write `file` as `out`, with what it says of its calibration. OutputError if it cannot be written."""
    specs = [TensorSpec(info.name, info.shape, info.type) for info in file.tensors.values()]
    assets = {name: file.asset(name) for name in file.assets} | {ASSET: seen.content()}
    with Writer(out, specs, file.metadata, assets, file.requires) as writer:
        for name in file.tensors:
            writer.write(name, file.data(name))


def _parts(calibration: Calibration) -> tuple[tuple[int, ...], Sequences, I32Array]:
    """The token that all sequences begin with, if there is one; parts of LENGTH tokens, each after that one, evenly
    from all sequences; the corpora that they are of."""
    pairs = list(zip(calibration.sequences, calibration.origins.tolist(), strict=True))
    firsts = {int(one[0]) for one, _ in pairs}
    start = np.array([*firsts], np.int32) if len(firsts) == 1 and len(pairs) > 1 else np.empty(0, np.int32)
    found: list[tuple[I32Array, int]] = []
    for sequence, origin in pairs:
        rest = sequence[len(start) :]
        for first in range(0, len(rest), LENGTH - len(start)):
            part = np.concatenate([start, rest[first : first + LENGTH - len(start)]])
            if len(part) >= (LENGTH if first else LEAST):
                found.append((part, origin))
    chosen = np.unique(np.linspace(0, len(found) - 1, min(TEXTS, len(found))).astype(int))
    return tuple(start.tolist()), [found[i][0] for i in chosen], np.array([found[i][1] for i in chosen], np.int32)


class _Read:
    """What one matrix read, text by text: counts of a sketch, and rows in all directions."""

    def __init__(self) -> None:
        self._counts: list[I64] = []  # those that are not zero, of the bins
        self._bins: list[I64] = []
        self._rows: list[F64] = []
        self._low, self._high = np.inf, -np.inf
        self._now, self._now_rows = np.zeros(BINS, np.int64), list[F64]()

    def begin(self) -> None:
        """What follows is of another text."""
        if self._now_rows:
            self._bins.append(np.flatnonzero(self._now))
            self._counts.append(self._now[self._bins[-1]])
            self._rows.append(np.concatenate(self._now_rows))
        self._now, self._now_rows = np.zeros(BINS, np.int64), []

    def add(self, every: F32Array, sample: F32Array) -> None:
        """Rows f32 [rows, columns] of the text."""
        self._low, self._high = min(self._low, float(every.min())), max(self._high, float(every.max()))
        self._now += bin_counts(sample)
        self._now_rows.append(directed(sample))

    def input(self) -> Input:
        """All of it."""
        self.begin()
        return Input(self._low, self._high, self._values(), self._directions())

    def _values(self) -> Histograms:
        counts = np.zeros(BINS, np.int64)
        for bins, own in zip(self._bins, self._counts, strict=True):
            counts[bins] += own
        sketch = Sketch(counts, self._low, self._high, np.empty(0, np.float32))
        edges = sketch.edges(BINS_OF_VALUES).astype(np.float64)
        full = ASCENDING[counts[ASCENDING] > 0]
        place = np.zeros(BINS, np.int64)
        place[full] = np.searchsorted(edges, sketch.histogram[0], "right")
        texts = [
            np.bincount(place[bins], own, BINS_OF_VALUES).astype(np.int64)[None]
            for bins, own in zip(self._bins, self._counts, strict=True)
        ]
        return _histograms(edges[None], texts)

    def _directions(self) -> Histograms:
        rows = np.sort(np.concatenate(self._rows), axis=0)
        at = len(rows) * np.arange(1, BINS_OF_DIRECTIONS) // BINS_OF_DIRECTIONS
        edges = rows[at].T.astype(np.float32).astype(np.float64)
        return _histograms(edges, [counts_between(edges, one) for one in self._rows])


def _histograms(edges: F64, texts: Sequence[I64]) -> Histograms:
    counts = np.sum(texts, axis=0)
    shares = counts / counts.sum(1, keepdims=True)
    return Histograms(shares, spread_of(texts, shares), edges)


def _tokens(sequences: Sequences, texts: Sequences) -> Tokens:
    """Groups of tokens that are about as frequent, the most frequent first."""
    every = np.concatenate(sequences)
    ids, counts = np.unique(every, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LISTED]
    groups, mass = [list[int]()], 0
    for token, count in zip(ids[order].tolist(), counts[order].tolist(), strict=True):
        if mass * BINS_OF_TOKENS >= len(every) and len(groups) < BINS_OF_TOKENS - 1:
            groups.append([])
            mass = 0
        groups[-1].append(token)
        mass += count
    found = Tokens(np.empty((1, 0)), 0.0, tuple(map(tuple, groups)))
    shares = found.counts(every) / len(every)
    return Tokens(shares, spread_of([found.counts(one) for one in texts], shares), found.groups)


def _slices(calibration: Calibration, tokens: Tokens, losses: F64, origins: I32Array) -> tuple[Slice, ...]:
    """Those corpora of which a text was looked at."""
    found = []
    for number in np.unique(origins).tolist():
        corpus = calibration.corpora[number]
        every = np.concatenate(
            [one for one, origin in zip(calibration.sequences, calibration.origins, strict=True) if origin == number]
        )
        perplexity = float(np.exp(losses[origins == number].mean()))
        found.append(Slice(corpus.name, len(every), perplexity, tokens.counts(every) / len(every)))
    return tuple(found)
