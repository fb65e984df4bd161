"""A reference's predictions in a file, computed once: for each 16 positions of a chunk, or what is left of it, a
record, appended as soon as it is computed.

The file begins with a line that names the format, then one of JSON: what was predicted (model, tokens, chunk sizes)
and how it is stored. A record has of each of its positions, little-endian:

    nll   f32    of the token that follows
    top   i32    the likeliest token
    then without `top_k`
    log   f16    [vocab] natural logarithms of the probabilities
    or with it
    ids   i32    [top_k] the likeliest tokens
    log   f16    [top_k] theirs
    tail  f32    probability of all others together

each as an array over the positions, and ends with its CRC-32 (u32). A record that is incomplete, as its writer was
killed, is computed again.

What is stored in full has KL divergences right to a few parts in ten thousand. With `top_k` the tokens of the tail
count as one, which lets a divergence come out smaller than it is: by how the model spreads the tail otherwise.
"""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgeq.engine.model import PART, Model
from edgeq.engine.shared_session import log_softmax
from edgeq.errors import OutputError, UsageError
from edgeq.evaluate.predictions import F64, Exact, Ids, Predicted, predictions
from edgeq.evaluate.texts import Chunk, digest

MAGIC = b"edgeq reference predictions 1\n"


class Top:
    """Predictions of which only the likeliest tokens are known, and what the others have together."""

    def __init__(self, ids: Ids, log: F64, tail: F64, nll: F64, top: Ids) -> None:
        self.ids, self.log, self.tail, self.nll, self.top = ids, log, tail, nll, top

    def divergence(self, other: F64) -> F64:
        q = np.take_along_axis(other, self.ids, axis=1)
        p = np.exp(self.log)
        total = p.sum(axis=1) + self.tail
        rest = np.maximum(-np.expm1(np.log(np.exp(q).sum(axis=1))), 1e-30)
        tail = np.where(self.tail > 0, self.tail * (np.log(np.maximum(self.tail, 1e-30)) - np.log(rest)), 0.0)
        result: F64 = ((p * (self.log - q)).sum(axis=1) + tail) / total - np.log(total)
        return result


class ReferenceLogits:
    """Such a file, open. `model` computes what it does not hold yet; without one all must be there.

    Raises UsageError for one that belongs to something else, or lacks chunks that nobody can compute, OutputError
    where it cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], chunks: Sequence[Chunk], model: Model | None, top_k: int | None = None
    ) -> None:
        self.path = Path(path)
        self.chunks = chunks
        self.model = model
        fresh = not self.path.exists()
        if fresh and model is None:
            raise UsageError(f"{self.path}: does not exist: give --reference to make it")
        try:
            self._file: BinaryIO = open(self.path, "rb" if model is None else "w+b" if fresh else "r+b")  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be opened: {error.strerror}: choose another place") from error
        self.header = self._begin(model, top_k) if fresh and model else self._read_header()
        self._check(top_k)
        self._starts = self._places()

    @property
    def top_k(self) -> int | None:
        return self.header["top_k"]  # type: ignore[no-any-return]

    def predictions(self, number: int) -> Iterator[Predicted]:
        """The predictions of a chunk, a few positions at a time: read, or else computed and stored."""
        chunk, computed = self.chunks[number], None
        for part, first in enumerate(range(0, chunk.positions, PART)):
            record = self._record(number, part) if computed is None else None
            if record is None:
                computed = computed or self._computed(number, first)
                record = self._store(number, part, next(computed))
            yield self._unpack(record, min(PART, chunk.positions - first))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "ReferenceLogits":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self, model: Model, top_k: int | None) -> dict[str, Any]:
        header = {
            "reference": os.path.basename(model.file.path),
            "weights": fingerprint(model),
            "bytes": model.file.nbytes,
            "vocab": model.vocab_size,
            "chunks": len(self.chunks),
            "tokens": sum(len(chunk.ids) for chunk in self.chunks),
            "text_sha256": digest(self.chunks),
            "top_k": None if top_k is None else min(top_k, model.vocab_size),
            "element": "f16",
        }
        self._file.write(MAGIC + json.dumps(header).encode() + b"\n")
        self._file.flush()
        return header

    def _read_header(self) -> dict[str, Any]:
        wrong = UsageError(f"{self.path}: is no file of reference predictions: give another --reference-logits")
        if self._file.read(len(MAGIC)) != MAGIC:
            raise wrong
        try:
            header: dict[str, Any] = json.loads(self._file.readline())
            _ = header["vocab"], header["top_k"], header["text_sha256"], header["weights"]
        except (ValueError, KeyError, TypeError) as error:
            raise wrong from error
        return header

    def _check(self, top_k: int | None) -> None:
        again = "remove it, or give another --reference-logits"
        if self.header["text_sha256"] != digest(self.chunks):
            raise UsageError(f"{self.path}: was made of other text, chunks or tokens: {again}")
        if self.model is not None and self.header["weights"] != fingerprint(self.model):
            raise UsageError(f"{self.path}: was made by another model, {self.header['reference']}: {again}")
        if top_k is not None and self.header["top_k"] != min(top_k, self.header["vocab"]):
            raise UsageError(f"{self.path}: was made with a top-k of {self.header['top_k'] or 'all'}: {again}")

    def _places(self) -> list[int]:
        """Where the records of each chunk begin, and the last ones end."""
        self._file.seek(len(MAGIC))
        starts = [len(MAGIC) + len(self._file.readline())]
        for chunk in self.chunks:
            starts.append(starts[-1] + chunk.positions * self._each + 4 * -(-chunk.positions // PART))
        return starts

    @property
    def _each(self) -> int:
        """Bytes of a position."""
        return 8 + int(2 * self.header["vocab"] if self.top_k is None else 6 * self.top_k + 4)

    def _place(self, number: int, part: int) -> tuple[int, int]:
        """Where a record begins, and its bytes."""
        positions = min(PART, self.chunks[number].positions - part * PART)
        return self._starts[number] + part * (PART * self._each + 4), positions * self._each + 4

    def _record(self, number: int, part: int) -> bytes | None:
        """A record, if it is there and whole."""
        start, size = self._place(number, part)
        self._file.seek(start)
        record = self._file.read(size)
        whole = len(record) == size and zlib.crc32(record[:-4]) == int.from_bytes(record[-4:], "little")
        return record if whole else None

    def _computed(self, number: int, skip: int) -> Iterator[Exact]:
        if self.model is None:
            raise UsageError(
                f"{self.path}: lacks chunk {number + 1} of {len(self.chunks)}: give --reference to compute the rest"
            )
        return predictions(self.model, self.chunks[number], skip)

    def _store(self, number: int, part: int, found: Exact) -> bytes:
        """The record of what was computed, written."""
        content = b"".join(array.tobytes() for array in self._pack(found))
        record = content + zlib.crc32(content).to_bytes(4, "little")
        start, _ = self._place(number, part)
        try:
            self._file.seek(start)
            self._file.write(record)
            self._file.flush()
        except OSError as error:
            need = (self._starts[-1] - start) / 1e6
            raise OutputError(
                f"{self.path}: cannot be written: {error.strerror} ({need:.0f} MB more needed): make room, or give "
                "--reference-top-k"
            ) from error
        return record

    def _pack(self, part: Exact) -> list[npt.NDArray[Any]]:
        head: list[npt.NDArray[Any]] = [part.nll.astype("<f4"), part.top.astype("<i4")]
        if self.top_k is None:
            return [*head, part.log.astype("<f2")]
        ids = np.argpartition(part.log, -self.top_k, axis=1)[:, -self.top_k :]
        log = np.take_along_axis(part.log, ids, axis=1)
        tail = np.maximum(1.0 - np.exp(log).sum(axis=1), 0.0)
        return [*head, ids.astype("<i4"), log.astype("<f2"), tail.astype("<f4")]

    def _unpack(self, record: bytes, n: int) -> Predicted:
        """The predictions of a record of `n` positions."""
        place = 0

        def take(kind: str, *shape: int) -> npt.NDArray[Any]:
            nonlocal place
            found = np.frombuffer(record, kind, prod(shape), place)
            place += found.nbytes
            return found.reshape(shape)

        nll, top = take("<f4", n).astype(np.float64), take("<i4", n).astype(np.int64)
        if self.top_k is None:
            return Exact(log_softmax(take("<f2", n, self.header["vocab"])), nll, top)  # sums to 1 again
        ids, log, tail = take("<i4", n, self.top_k), take("<f2", n, self.top_k), take("<f4", n)
        return Top(ids.astype(np.int64), log.astype(np.float64), tail.astype(np.float64), nll, top)


def fingerprint(model: Model) -> str:
    """What a model's weights are known by: CRC-32 of those of its tensors."""
    names = sorted((info.name, info.crc32) for info in model.file.tensors.values())
    return f"{zlib.crc32(json.dumps(names).encode()):08x}"
