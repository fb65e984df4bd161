"""What a model's matrices read while it ran over text: the knowledge by which its weights are quantized.

`collect.py` gathers it, `imatrix.py` keeps it in a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeq.errors import UsageError
from edgeq.models import Architecture
from edgeq.models.gguf_places import FUSED, split
from edgeq.quantize.sketch import Sketch

F32Array = npt.NDArray[np.float32]
I32Array = npt.NDArray[np.int32]

EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Statistics:
    """What one matrix read.

    sum_square  f32 [columns], of all rows x; of experts f32 [experts, columns], each of the rows routed to it
    counts      int64 [1], how many rows; int64 [experts] of experts
    low, high   the least and the greatest value; NaN where unknown, as in a file of llama.cpp's
    sketch      all values by size; None where unknown, as in a file of llama.cpp's, and of older ones of ours
    gram        f32 [columns, columns], E[x x^T], for the matrices that it was asked for
    """

    sum_square: F32Array
    counts: npt.NDArray[np.int64]
    low: float = np.nan
    high: float = np.nan
    sketch: Sketch | None = None
    gram: F32Array | None = None

    @property
    def columns(self) -> int:
        """How many values a row x has."""
        return int(self.sum_square.shape[-1])

    @property
    def mean_square(self) -> F32Array:
        """E[x^2], f32 of the shape of `sum_square`. An expert that saw nothing has the mean over all."""
        sums = self.sum_square.astype(np.float64)
        if sums.ndim == 1:
            return (sums / max(int(self.counts[0]), 1)).astype(np.float32)
        pooled = sums.sum(0) / max(int(self.counts.sum()), 1)
        means = sums / np.maximum(self.counts, 1)[:, None]
        return np.where(self.counts[:, None] > 0, means, pooled).astype(np.float32)


@dataclass(frozen=True)
class Subject:
    """The model that was calibrated. `name` is for people: another name is no other model."""

    architecture: str
    layers: int
    hidden_size: int
    vocab_size: int
    name: str = ""

    @staticmethod
    def of(model: Architecture, name: str = "") -> "Subject":
        """That of a configured architecture."""
        vocab_size, hidden_size = model.tensors[EMBEDDING].shape
        return Subject(model.name, model.num_hidden_layers, hidden_size, vocab_size, name)

    def __str__(self) -> str:
        sizes = f"{self.architecture}, {self.layers} layers of {self.hidden_size}, {self.vocab_size} tokens"
        return f"{self.name} ({sizes})" if self.name else sizes

    def same(self, other: "Subject") -> bool:
        """Whether both are of one shape."""
        return (self.architecture, self.layers, self.hidden_size, self.vocab_size) == (
            other.architecture,
            other.layers,
            other.hidden_size,
            other.vocab_size,
        )


@dataclass(frozen=True)
class Corpus:
    """One of the texts: its tokens in number, and the model's perplexity on a part of them, NaN where unknown."""

    name: str
    tokens: int
    perplexity: float = np.nan


@dataclass(frozen=True)
class Calibration:
    """What a model read, and of which text. `source` is what it is called in messages: its file, mostly.

    matrices  by name, as in GGUF: `of` finds those of a matrix by its name here
    subject   None where the file does not say, as llama.cpp's
    sequences the token ids that the model ran over, int32 [tokens] each, in order; none in a file of llama.cpp's
    corpora   the texts; `origins`, int32 [sequences], says which one a sequence is of
    chunk_size tokens that a sequence has at most
    """

    source: str
    matrices: Mapping[str, Statistics]
    subject: Subject | None = None
    sequences: tuple[I32Array, ...] = ()
    origins: I32Array = field(default_factory=lambda: np.empty(0, np.int32))
    corpora: tuple[Corpus, ...] = ()
    chunk_size: int = 512

    def of(self, name: str) -> Statistics | None:
        """What the matrix of that name in an `.eqf` file read: by itself, or as a part of one that GGUF fuses. None
        where nothing is known of it."""
        if name in self.matrices:
            return self.matrices[name]
        prefix, stem, suffix = split(name)
        whole = (f"{prefix}{whole}{suffix}" for whole, parts in FUSED if stem in parts)
        return next((self.matrices[one] for one in whole if one in self.matrices), None)

    def mean_square(self, name: str) -> F32Array | None:
        """E[x^2] of what a matrix reads, by column, where that is known."""
        seen = self.of(name)
        return None if seen is None else seen.mean_square

    def maxima(self, name: str) -> F32Array | None:
        """f32 [columns], the largest magnitudes of what a matrix read; None where that is not known."""
        seen = self.of(name)
        return None if seen is None or seen.sketch is None else seen.sketch.channel_maxima

    def sketch(self, name: str) -> Sketch:
        """What values a matrix read. UsageError where that is not known."""
        seen = self.of(name)
        if seen is None or seen.sketch is None:
            what = "has no sketch of what" if seen else "knows nothing of what"
            raise UsageError(f"{self.source}: {what} {name} reads: calibrate again (edgeq calibrate)")
        return seen.sketch

    @property
    def tokens(self) -> int:
        """How many tokens the model ran over."""
        return sum(map(len, self.sequences)) or max(
            (int(one.counts.max()) for one in self.matrices.values()), default=0
        )

    @property
    def token_counts(self) -> npt.NDArray[np.int64]:
        """int64 [vocabulary]: how often each token was read; empty where the tokens are unknown."""
        if not self.sequences or self.subject is None:
            return np.empty(0, np.int64)
        return np.bincount(np.concatenate(self.sequences), minlength=self.subject.vocab_size)

    def corpus_counts(self, corpus: int) -> npt.NDArray[np.int64]:
        """int64 [vocabulary]: how often each token was read in the text of that number; empty where unknown."""
        mine = [one for one, origin in zip(self.sequences, self.origins, strict=True) if origin == corpus]
        if not mine or self.subject is None:
            return np.empty(0, np.int64)
        return np.bincount(np.concatenate(mine), minlength=self.subject.vocab_size)

    def starved(self, least: int) -> list[str]:
        """`NAME: n of m experts saw fewer than `least` tokens`, for each matrix of experts of which that is so."""
        found = []
        for name, one in self.matrices.items():
            if one.sum_square.ndim > 1 and (few := int((one.counts < least).sum())):
                found.append(f"{name}: {few} of {len(one.counts)} experts saw fewer than {least} tokens")
        return found

    def check(self, model: Architecture, source: str) -> None:
        """UsageError, of one line, unless it is a calibration of `model`, which is called `source`."""
        again = f"make one of this model: edgeq calibrate {source}"
        if self.subject is not None:
            own = Subject.of(model)
            if not own.same(self.subject):
                raise UsageError(f"{self.source}: is of {self.subject}, {source} is {own}: {again}")
        known = 0
        for name, tensor in model.tensors.items():
            if len(tensor.shape) < 2 or not (found := self.of(name)):
                continue
            known += 1
            needed = (*tensor.shape[:-2], tensor.shape[-1])
            if found.sum_square.shape not in (needed, needed[-1:]):
                has = list(found.sum_square.shape)
                raise UsageError(f"{self.source}: {name} has {has} values, {source} needs {list(needed)}: {again}")
        if not known:
            raise UsageError(f"{self.source}: has none of the matrices of {source}: {again}")
