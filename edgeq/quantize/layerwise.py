"""Quantize a model layer after layer: each matrix for the inputs that the quantized layers before it give, corrected so
that its results go back to those of the float model.

For rows x that a matrix W reads in the float model, x~ in the quantized one, and the residual stream r, r~ that its
result is added to, W^ is to give r~ + W^ x~ nearest to r + W x: nearest to W + (W E[(x - x~) x~^T] + E[(r - r~) x~^T])
H^-1, in the metric H = E[x~ x~^T]. The matrices that read the same are quantized together; then the layer runs again,
up to what the next ones read. Memory holds one layer and the rows between two.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.fields import F32, U8
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File
from edgeq.graph.aligned import aligned_copy
from edgeq.models import architecture
from edgeq.ops.tap import ADDED_TO
from edgeq.quantize.factors import DAMPING, DOUBT, SWEEPS, Metric
from edgeq.quantize.mixture import Mixture
from edgeq.quantize.reads import routers
from edgeq.quantize.stages import F64, Reading, Rows, moment, readings, run
from edgeq.version import VERSION

EMBEDDING = "token_embd.weight"
Announce = Callable[[str], None]


@dataclass
class State:
    """What the next layer begins with: the residual stream in both models; 0 layers are done at first."""

    layers: int
    exact: Rows
    quantized: Rows


class Unfinished:
    """What is done, in files of a folder, which is made if need be; `fingerprint` tells whether that is the same work.

    Raises OSError where they cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        folder.mkdir(exist_ok=True)

    def put(self, state: State, panels: Mapping[str, U8]) -> None:
        """Keep the panels of the latest layer, and what the next one begins with."""
        self._write(f"layer-{state.layers}.npz", **panels)
        lengths = np.array([len(one) for one in state.exact])
        both = {"exact": np.concatenate(state.exact), "quantized": np.concatenate(state.quantized)}
        self._write("state.npz", layers=state.layers, fingerprint=self.fingerprint, lengths=lengths, **both)

    def state(self) -> State | None:
        """What is to go on from; None if nothing of the same work is there."""
        try:
            with np.load(self.folder / "state.npz") as kept:
                if str(kept["fingerprint"]) != self.fingerprint:
                    return None
                ends = np.cumsum(kept["lengths"])[:-1]
                exact, quantized = (np.split(kept[name], ends) for name in ("exact", "quantized"))
                return State(int(kept["layers"]), exact, quantized)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return None

    def panels(self, layers: int) -> dict[str, U8]:
        """Those kept when so many layers were done."""
        with np.load(self.folder / f"layer-{layers}.npz") as kept:
            return {name: aligned_copy(kept[name]) for name in kept.files}

    def _write(self, name: str, **arrays: Any) -> None:
        """Whole or not at all."""
        unfinished = self.folder / f"unfinished-{name}"
        np.savez(unfinished, **arrays)
        os.replace(unfinished, self.folder / name)


class LayerWise:
    """Quantizes the matrices `types` (name -> block type) of the float model `file` for token ids `sequences`.

    head_gram: E[x x^T] of what the head reads, f32 [hidden size, hidden size]: for an embedding that is the head too
    threads:   of sessions and quantizing
    announce:  hears a line after each layer
    folder:    where what is done is kept after each layer: the same work, begun again, goes on from there
    """

    sweeps = SWEEPS  # how often scale groups are rounded again

    def __init__(
        self,
        file: File,
        types: Mapping[str, str],
        sequences: Sequence[npt.NDArray[np.int32]],
        *,
        head_gram: F32 | None = None,
        threads: int = 1,
        announce: Announce | None = None,
        folder: Path | None = None,
    ) -> None:
        self.file, self.types, self.sequences = file, types, sequences
        self.head_gram, self.threads, self.announce = head_gram, threads, announce
        self._unfinished = Unfinished(folder, self._fingerprint()) if folder else None
        self.model = architecture(file.metadata["config"], file.path)
        self.layers = self.model.num_hidden_layers
        self.shapes = {name: info.shape for name, info in file.tensors.items()}
        self.routers = routers(self.model, file)

    def tensors(self) -> Iterator[tuple[str, U8]]:
        """(name, panels) of every matrix of `types` of linear layers, experts and the embedding, in their order."""
        found = self._unfinished.state() if self._unfinished else None
        if found is not None and self._unfinished is not None:
            state = found
            for done in range(state.layers + 1):
                yield from self._unfinished.panels(done).items()
            if self.announce:
                self.announce(f"goes on after layer {state.layers} of {self.layers}")
        else:
            state, panels = self._first()
            yield from panels.items()
        while state.layers < self.layers:
            panels = {}
            for name, data in self._layer(state):
                panels[name] = data
                yield name, data
            stage = range(state.layers + 1, state.layers + 2)
            state.quantized = run(self._with(panels), stage, state.quantized, self.threads)
            state.layers += 1
            if self._unfinished:
                self._unfinished.put(state, panels)
            if self.announce:
                error = _relative(state.exact, state.quantized)
                self.announce(f"layer {state.layers} of {self.layers}: the residual stream is off by {error:.2%}")
        yield from self._head(state)

    def _first(self) -> tuple[State, dict[str, U8]]:
        """What the first layer begins with; panels of the embedding. Where it is the head too, what that reads decides
        about them."""
        panels: dict[str, U8] = {}
        if EMBEDDING in self.types:
            tied = self.head_gram is not None and "output.weight" not in self.shapes
            gram = self.head_gram if tied and self.head_gram is not None else np.eye(self.shapes[EMBEDDING][1])
            panels = self._quantized([EMBEDDING], gram.astype(np.float64), {})
        ids = [np.asarray(one) for one in self.sequences]
        exact, quantized = (run(file, range(1), ids, self.threads) for file in (self.file, self._with(panels)))
        state = State(0, exact, quantized)
        if self._unfinished:
            self._unfinished.put(state, panels)
        return state, panels

    def _layer(self, state: State) -> Iterator[tuple[str, U8]]:
        """The matrices of the next layer. Leaves in `state.exact` what the float model's layer gives."""
        stage = range(state.layers + 1, state.layers + 2)
        order = readings(self.model, self.shapes, stage)
        exact: dict[str, Rows] = {name: [] for reading in order for name in reading.taps}
        state.exact = run(self.file, stage, state.exact, self.threads, exact)
        own: dict[str, U8] = {}
        for reading in order:
            if not any(name in self.types for name in reading.names) and not self._mixtures(reading):
                continue
            seen: dict[str, Rows] = {name: [] for name in reading.taps}
            run(self._with(own), stage, state.quantized, self.threads, seen, only_taps=True)
            x = seen[reading.names[0]]
            panels = self._quantized(reading.names, moment(x, x), _corrections(reading, exact, seen))
            for mixture in self._mixtures(reading):
                panels |= mixture.tensors(exact[reading.names[0]], x)
            own |= panels
            yield from panels.items()

    def _mixtures(self, reading: Reading) -> list[Mixture]:
        """Of experts that are given what a router among `reading` is given."""
        routers = (self.routers[name] for name in reading.names if name in self.routers)
        mixtures = (Mixture(self.file, router, self.types, self.threads) for router in routers)
        return [mixture for mixture in mixtures if mixture.quantizes]

    def _head(self, state: State) -> Iterator[tuple[str, U8]]:
        """The head, if it is a matrix of its own."""
        if "output.weight" not in self.types:
            return
        stage = range(self.layers + 1, self.layers + 2)
        exact, seen = (
            {"output.weight": run(self.file, stage, rows, self.threads, states=True)}
            for rows in (state.exact, state.quantized)
        )
        reading = Reading(("output.weight",), ())
        x = seen["output.weight"]
        yield from self._quantized(reading.names, moment(x, x), _corrections(reading, exact, seen)).items()

    def _quantized(self, names: Sequence[str], gram: F64, corrections: Mapping[str, F64]) -> dict[str, U8]:
        """Panels of those of the matrices that are in `types`. `corrections`: by name, of what a result is added to;
        by "" of what is read."""
        found: dict[str, U8] = {}
        metric = Metric(gram, sum(map(len, self.sequences)), self.sweeps)
        for name in names:
            if name not in self.types:
                continue
            target = self._weights(name).astype(np.float64)
            if corrections:
                target = metric.corrected(target, target @ corrections[""] + corrections.get(name, 0.0))
            panels = metric.quantize(target.astype(np.float32), block_type(self.types[name]), self.threads)
            found[name] = aligned_copy(panels)
        return found

    def _weights(self, name: str) -> F32:
        rows, columns = self.shapes[name]
        return decode(self.file.data(name), rows, columns, self.file.tensors[name].type)

    def _with(self, panels: Mapping[str, U8]) -> File:
        own = {name: (self.types[name], data) for name, data in panels.items()}
        return ChangedFile(self.file, own) if own else self.file

    def _fingerprint(self) -> str:
        """Of all that the result depends on."""
        digest = sha256(json.dumps([VERSION, DAMPING, DOUBT, self.sweeps, sorted(self.types.items())]).encode())
        digest.update(json.dumps([self.file.metadata, [info.crc32 for info in self.file.tensors.values()]]).encode())
        for part in (*self.sequences, *(() if self.head_gram is None else (self.head_gram,))):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def _corrections(reading: Reading, exact: Mapping[str, Rows], seen: Mapping[str, Rows]) -> dict[str, F64]:
    """By "" E[(x - x~) x~^T], by the name of each matrix that adds to r E[(r - r~) x~^T]."""
    x = seen[reading.names[0]]
    found = {"": moment(_difference(exact[reading.names[0]], x), x)}
    for name in reading.adding:
        tap = f"{name}{ADDED_TO}"
        found[name] = moment(_difference(exact[tap], seen[tap]), x)
    return found


def _difference(exact: Rows, seen: Rows) -> Rows:
    return [a - b for a, b in zip(exact, seen, strict=True)]


def _relative(exact: Rows, quantized: Rows) -> float:
    """RMS difference relative to the RMS of what is exact."""
    off = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(exact, quantized, strict=True))
    whole = sum(float(np.square(a, dtype=np.float64).sum()) for a in exact)
    return float(np.sqrt(off / whole)) if whole else 0.0
