"""Adapters merged into a checkpoint: what is read of it has them in its weights, whatever it is converted to."""

import os
from collections.abc import Sequence

import numpy as np

from edgeq.adapters.fitting import EMBEDDING, HEAD, fitted, rows_of
from edgeq.adapters.given import Wanted, files_of
from edgeq.adapters.reading import read_adapter
from edgeq.checkpoints.checkpoint import Checkpoint, Opener, open_checkpoint
from edgeq.checkpoints.merged import Change, Merged
from edgeq.errors import UnsupportedError
from edgeq.models import Architecture, architecture
from edgeq.models.tensors import Part, also_called, settled


class MergedSource(Opener):
    """A checkpoint's source, and adapters that are merged into it."""

    def __init__(self, source: str | os.PathLike[str], lora: Sequence[Wanted]) -> None:
        self._source, self._lora = source, tuple(lora)

    def __fspath__(self) -> str:
        return os.fspath(self._source)

    def __str__(self) -> str:
        return " + ".join([os.fspath(self._source), *(f"{path}:{scale:g}" for path, scale in self._lora)])

    def open(self, revision: str | None = None) -> Checkpoint:
        """The checkpoint with the adapters. Raises as `open_checkpoint`, `read_adapter` and `fitted` do."""
        checkpoint = open_checkpoint(self._source, revision)
        try:
            return _merged(checkpoint, self._lora)
        except BaseException:
            checkpoint.close()
            raise


def _merged(checkpoint: Checkpoint, lora: Sequence[Wanted]) -> Checkpoint:
    model = architecture(checkpoint.config, f"{checkpoint.source}: config.json")
    names = _Names(checkpoint, model)
    changes: dict[str, list[Change]] = {}
    for path, scale in lora:
        adapter = read_adapter(path)
        for name, pair in fitted(adapter, model).items():
            parts = names.parts(name)
            part = parts[0]
            target = names.stored(part.source)
            if target is None:
                continue  # converting says what the checkpoint lacks
            if model.tensors[name].ternary:
                raise UnsupportedError(
                    f"{adapter.weights}: adds to {target}, which is rounded to three values: give it to `edgeq run`"
                )
            if part.transposed and target in checkpoint.packed:
                raise UnsupportedError(f"{adapter.weights}: {target} is quantized: merge into the original checkpoint")
            rows = part.shape[1] if part.transposed else part.shape[0]
            b = np.zeros((rows, len(pair.a)), np.float32)
            b[rows_of(parts)] = pair.b * np.float32(scale * pair.factor)
            change = Change(pair.a.T, np.ascontiguousarray(b.T)) if part.transposed else Change(b, pair.a)
            changes.setdefault(target, []).append(change)
    files = [file for one in lora for file in files_of(one.path)]
    return Merged(checkpoint, changes, names.copies, [one.told for one in lora], files)


class _Names:
    """What a checkpoint calls a model's matrices. A head that it has not is a copy of the embedding."""

    def __init__(self, checkpoint: Checkpoint, model: Architecture) -> None:
        self._checkpoint, self._model = checkpoint, model
        self._settled = settled(model.tensors, lambda source: self._found(source) is not None)
        self._head = EMBEDDING if HEAD not in model.tensors else HEAD
        self.copies: dict[str, str] = {}  # the head -> the embedding

    def parts(self, name: str) -> tuple[Part, ...]:
        """The parts of a tensor of the checkpoint that a matrix of a linear layer is."""
        if name == EMBEDDING:
            return self._model.tensors[name].instead
        return self._settled[name].parts

    def stored(self, source: str) -> str | None:
        """The checkpoint's name, None if it has no such tensor."""
        found = self._found(source)
        if found is None and source == self.parts(self._head)[0].source:
            embedding = self._found(self._model.tensors[EMBEDDING].parts[0].source)
            if embedding is not None:
                self.copies[source] = embedding
                return source
        return found

    def _found(self, source: str) -> str | None:
        names = [source, *also_called(source, self._model.prefixes)]
        return next((name for name in names if name in self._checkpoint.tensors), None)
