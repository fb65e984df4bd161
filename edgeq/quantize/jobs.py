"""What a conversion does to each tensor: what it is made from and what it becomes, and its rows, read ahead."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.reference import decode
from edgeq.blocks.table import tensor_bytes
from edgeq.checkpoints import Checkpoint
from edgeq.checkpoints.packed import Rows
from edgeq.container.writer import TensorSpec
from edgeq.models import Architecture, Images
from edgeq.models.tensors import Tensor, settled
from edgeq.quantize import kept
from edgeq.quantize.chunks import Chunk, Sources, chunks
from edgeq.quantize.kept import Kept
from edgeq.quantize.matching import check_names, check_shapes
from edgeq.quantize.narrow import Loss
from edgeq.quantize.recipes import Choice, Recipe

CHUNK_BYTES = 16 << 20  # of f32 weights held at a time; the next chunk is read while one is encoded

F32Array = npt.NDArray[np.float32]

NONE: Mapping[str, Choice] = {}


@dataclass
class Noise:
    """Sums of squares over a sample of a tensor's weights: of what encoding changed, and of the weights."""

    changed: float = 0.0
    weights: float = 0.0

    def add(self, sample: F32Array, data: npt.NDArray[Any], name: str) -> None:
        """Compare a chunk's first rows with what its panels hold."""
        count, columns = sample.shape
        difference = decode(data[: tensor_bytes(name, sample.shape)], count, columns, name) - sample
        self.changed += float(np.square(difference, dtype=np.float64).sum())
        self.weights += float(np.square(sample, dtype=np.float64).sum())

    @property
    def relative(self) -> float:
        return float(np.sqrt(self.changed / self.weights)) if self.weights else 0.0


@dataclass(frozen=True)
class Job:
    """One tensor to convert: what it is made from, and what it becomes. `noise`: of what is not kept exactly; `loss`:
    whether its type is too narrow."""

    tensor: Tensor
    spec: TensorSpec
    fallback: str | None
    kept: Kept | None = None
    noise: Noise = field(default_factory=Noise)
    loss: Loss = field(default_factory=Loss)

    @property
    def keeps(self) -> bool:
        """Whether codes are kept as the checkpoint has them."""
        return self.kept is not None and self.kept.how != kept.ENCODED


def plan(
    checkpoint: Checkpoint,
    model: Architecture,
    chosen: Recipe,
    keep: bool,
    wider: Mapping[str, Choice] = NONE,
    images: Images | None = None,
) -> tuple[list[Job], list[str]]:
    """The tensors to convert, in the model's order, and the checkpoint's names that are not needed.

    keep: tensors that are quantized get types that keep their codes, where there is one
    wider: the types of tensors that no other can hold
    images: what the model sees with, whose tensors come after its own
    """
    sources = Sources(checkpoint, model)
    wanted = {**model.tensors, **(images.tensors if images else {})}
    tensors = settled(wanted, lambda source: sources.name(source) is not None)
    skipped = check_names(checkpoint, model, tensors, sources)
    tied = "output.weight" not in tensors
    jobs: list[Job] = []
    for name, tensor in tensors.items():
        check_shapes(checkpoint, tensor, sources)
        choice = chosen.type_for(name, tensor.shape, model.num_hidden_layers, tied)
        kind, fallback, how = choice.type, choice.fallback, None
        if packed := sources.packed(tensor):
            kind, how = kept.choose(packed, None if keep and kind == chosen.base else kind)
            fallback = None if how.how != kept.ENCODED else fallback
        if name in wider:
            kind, fallback = wider[name].type, wider[name].fallback
        jobs.append(Job(tensor, TensorSpec(name, tensor.shape, kind), fallback, how))
    return jobs, skipped


def read_ahead(sources: Sources, jobs: list[Job]) -> Iterator[tuple[int, Job, Chunk, F32Array | Rows]]:
    """(index of the job, job, chunk, its rows) of every chunk; the next one is read while this one is used."""
    places = [(i, job, chunk) for i, job in enumerate(jobs) for chunk in chunks(job.tensor, CHUNK_BYTES)]
    if not places:
        return

    def read(place: tuple[int, Job, Chunk]) -> F32Array | Rows:
        _, job, chunk = place
        return sources.read_packed(chunk) if job.keeps else sources.read(chunk)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, places[0])
        for n, (i, job, chunk) in enumerate(places):
            rows = ahead.result()
            if n + 1 < len(places):
                ahead = pool.submit(read, places[n + 1])
            yield i, job, chunk, rows
