"""Encodes the matrices of an `.eqf` file again, by another recipe: of a float model, with what calibration knows of it;
of models of which there is nothing better left."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgeq.blocks.reference import decode
from edgeq.blocks.table import PANEL_ROWS, block_type, tensor_bytes
from edgeq.container.gguf_values import METADATA_ASSET, without_keys
from edgeq.container.reader import File, TensorInfo, open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.drift.seen import ASSET as CALIBRATION
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.kernels import mend_api
from edgeq.kernels.encode_api import encode_panels, prepare
from edgeq.models import Architecture, architecture
from edgeq.models.image_tower import is_of_images
from edgeq.quantize import kept
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.converted import Converted, Report
from edgeq.quantize.equalize import equalized, folds, smoothed
from edgeq.quantize.jobs import CHUNK_BYTES
from edgeq.quantize.kept import Kept
from edgeq.quantize.layerwise import LayerWise
from edgeq.quantize.narrow import BF16_MAX, F16_MAX
from edgeq.quantize.pipeline import SAMPLE_ROWS, Progress
from edgeq.quantize.recipes import Choice, Recipe, recipe
from edgeq.system import environment
from edgeq.version import VERSION

PLAIN, IMPORTANCE, FEEDBACK = "plain", "importance", "feedback"
PER_ROW_SMOOTHING = 0.65  # an exponent of 0.5 left SmolLM2 with 1.4 times the loss, one of 0.35 with 2.5 times
METHODS = (FEEDBACK, IMPORTANCE)

F32Array = npt.NDArray[np.float32]
U8Array = npt.NDArray[np.uint8]


@dataclass
class _Job:
    """A tensor, and what it becomes; sums of squares over a sample of its weights, and of what encoding changed.
    `importance`: of its columns, f32 [columns] or [experts, columns], where that is known."""

    info: TensorInfo
    spec: TensorSpec
    fallback: str | None
    importance: F32Array | None = None
    changed: float = 0.0
    weights: float = 0.0

    @property
    def copied(self) -> bool:
        return self.info.type == self.spec.type


def requantize(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    type: str,
    threads: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    called: str | None = None,
    gguf: bool = False,
    calibration: Calibration | None = None,
    method: str = FEEDBACK,
    types: Mapping[str, str] | None = None,
    folder: Path | None = None,
    label: str | None = None,
    smooth: float | None = None,
) -> Report:
    """Write the `.eqf` file `source` as the file `out`, its weights decoded and encoded again by the recipe `type`.

    A matrix that has the recipe's type already is copied, bit for bit; the loss of any other that was quantized adds up
    with the new one, and the report says so. The rest of the file stays as it is. `progress` and `announce` are as for
    `convert`; `called` is what messages call the source; `gguf` takes types that GGUF can hold.

    With a `calibration` errors are weighed by what the matrices read: by the `method` "importance" as column by column,
    by "feedback" as layerwise.py says, in the equal model that equalize.py makes; that keeps what is done in `folder`,
    where it goes on when it was stopped. By "plain" they are not weighed. `types` are of tensors, by name, in place of
    the recipe's, which is then called `label`. `smooth`, by "feedback" or "plain", folds in SmoothQuant's scales of
    that exponent in place of those that equalize, as far as the architecture has places for them.

    Raises UsageError for an unknown `type` or `method`, a calibration of another model, or one that cannot `smooth`
    this model, FormatError for a file that is none, UnsupportedError for weights that the new type cannot hold,
    OutputError if `out` cannot be written.
    """
    started = time.perf_counter()
    chosen = replace(recipe(type), gguf=gguf)
    chosen = replace(chosen, name=label or chosen.name)
    threads = threads or environment.threads() or environment.processors()
    with open_file(source) as file:
        model = architecture(file.metadata["config"], file.path)
        jobs = _plan(file, model.num_hidden_layers, chosen, types or {}, calibration is None)
        if calibration is not None:
            calibration.check(model, called or file.path)
            if method != PLAIN:
                _weigh(jobs, calibration)
        specs, metadata = [job.spec for job in jobs], _metadata(file, chosen, jobs, calibration, method, smooth)
        total, done = sum(4 * prod(job.spec.shape) for job in jobs), 0

        def advance(job: _Job, weights: int) -> None:
            nonlocal done
            done += 4 * weights
            if progress:
                progress(job.spec.name, jobs.index(job), len(jobs), done, total)

        with Writer(out, specs, metadata, _assets(file), file.requires) as writer:
            _prepare(jobs, calibration is not None, method, announce)
            left = {job.spec.name: job for job in jobs}
            if calibration is not None and (method == FEEDBACK or smooth is not None):
                file = _equalized(file, model, jobs, calibration, smooth)
                for job in jobs:
                    job.info = file.tensors[job.info.name]
            if calibration is not None and method == FEEDBACK:
                for name, panels in _fed_back(file, jobs, calibration, threads, announce, folder):
                    job = left.pop(name)
                    writer.write(name, panels)
                    _sample_panels(job, file.data(name), panels)
                    advance(job, prod(job.spec.shape))
            for job in left.values():
                for data, weights in _encoded(job, file.data(job.info.name), called or file.path, threads):
                    writer.write(job.spec.name, data)
                    advance(job, weights)
    tensors = [_converted(job, writer.tensor_bytes(job.spec.name), chosen) for job in jobs]
    return Report(
        os.fspath(out), chosen.name, model.name, writer.nbytes, time.perf_counter() - started, tensors=tensors
    )


def _prepare(jobs: list[_Job], calibrated: bool, method: str, announce: Callable[[str], None] | None) -> None:
    """Have the kernels ready that encode what is not copied."""
    matrices = [job for job in jobs if not job.copied and len(job.spec.shape) > 1]
    fed_back = matrices if calibrated and method == FEEDBACK else []
    mend_api.prepare({job.spec.type for job in fed_back}, announce)
    for weighted in (False, True):
        left = {job.spec.type for job in matrices if job not in fed_back and (job.importance is not None) == weighted}
        prepare(left, announce, weighted)


def _plan(file: File, layers: int, chosen: Recipe, types: Mapping[str, str], same_inputs: bool = True) -> list[_Job]:
    """`same_inputs`: whether matrices will read what they read now, so that scales of it stay right."""
    tied = "output.weight" not in file.tensors
    jobs = []
    for info in file.tensors.values():
        choice = chosen.type_for(info.name, info.shape, layers, tied)
        if types.get(info.name, choice.type) != choice.type:
            choice = Choice(types[info.name])
        scale = info.activation_scale if same_inputs and choice.type == info.type else None
        jobs.append(_Job(info, TensorSpec(info.name, info.shape, choice.type, scale), choice.fallback))
    return jobs


def _weigh(jobs: list[_Job], calibration: Calibration) -> None:
    """Give each matrix the importance of its columns, where calibration knows it."""
    for job in jobs:
        seen = calibration.of(job.info.name) if len(job.info.shape) > 1 else None
        if seen is not None and seen.columns == job.info.shape[-1]:
            job.importance = seen.mean_square


def _equalized(
    file: File, model: Architecture, jobs: list[_Job], calibration: Calibration, smooth: float | None
) -> File:
    """An equal model that loses less, of what comes from floats: of rows with one scale what counts is how far channels
    of activations reach, of others how much they matter. Or smoothed, where that is asked for."""
    fresh = {job.info.name for job in _matrices(jobs) if not block_type(job.info.type).quantized}
    if smooth is not None:
        if not fresh:
            raise UsageError(f"{file.path}: has no float weights to smooth: give what it was quantized from")
        if all(calibration.maxima(name) is None for name in fresh):
            raise UsageError(f"{calibration.source}: knows no channels' maxima, by which to smooth: calibrate again")
        return smoothed(file, model, calibration.maxima, fresh, smooth)
    per_row = any(block_type(job.spec.type).per_row for job in jobs)
    if per_row and folds(model, {name: info.shape for name, info in file.tensors.items()}):
        return smoothed(file, model, calibration.maxima, fresh, PER_ROW_SMOOTHING)
    return equalized(file, model, calibration.mean_square, fresh)


def _matrices(jobs: list[_Job]) -> list[_Job]:
    """Those that layer-wise quantization knows."""
    matrices = [job for job in jobs if len(job.info.shape) > 1 and not is_of_images(job.info.name)]
    return [job for job in matrices if block_type(job.spec.type).quantized and not job.copied]


def _fed_back(
    file: File,
    jobs: list[_Job],
    calibration: Calibration,
    threads: int,
    announce: Callable[[str], None] | None,
    folder: Path | None,
) -> Iterator[tuple[str, U8Array]]:
    """(name, panels) of the matrices that layer-wise quantization knows, in the file's order."""
    types = {job.info.name: job.spec.type for job in _matrices(jobs)}
    head = calibration.of("output.weight" if "output.weight" in file.tensors else "token_embd.weight")
    gram = None if head is None else head.gram
    layers = LayerWise(
        file, types, calibration.sequences, head_gram=gram, threads=threads, announce=announce, folder=folder
    )
    return layers.tensors()


def _encoded(job: _Job, data: U8Array, source: str, threads: int) -> Iterator[tuple[npt.NDArray[Any], int]]:
    """What is written, run by run of rows, and how many weights each holds."""
    info, kind = job.info, job.spec.type
    if len(info.shape) == 1:
        yield data, prod(info.shape)
        return
    rows, cols = info.shape[-2:]
    panel = block_type(info.type).panel_bytes(cols)
    step = max(CHUNK_BYTES // (4 * cols) // PANEL_ROWS, 1) * PANEL_ROWS
    for i, matrix in enumerate(data.reshape(prod(info.shape[:-2]), -1)):
        importance = job.importance[i] if job.importance is not None and job.importance.ndim > 1 else job.importance
        for first in range(0, rows, step):
            count = min(step, rows - first)
            panels = matrix[first // PANEL_ROWS * panel : -(-(first + count) // PANEL_ROWS) * panel]
            if job.copied:
                yield panels, count * cols
                continue
            weights = decode(panels, count, cols, info.type)
            _check(job, weights, source)
            encoded = encode_panels(weights, kind, threads, importance)
            _sample(job, weights[:SAMPLE_ROWS], encoded)
            yield encoded, count * cols


def _check(job: _Job, weights: F32Array, source: str) -> None:
    """UnsupportedError for weights that the tensor's new type cannot hold."""
    limit = {"F32": float(np.finfo(np.float32).max), "BF16": BF16_MAX}.get(job.spec.type, F16_MAX)
    largest = float(np.abs(weights).max())
    if not largest <= limit:  # a NaN is not, either
        what = f"{source}: tensor {job.info.name!r} holds {largest:.6g}"
        advice = "take another file" if not np.isfinite(largest) else "take BF16 or F32"
        raise UnsupportedError(f"{what}, which {job.spec.type} cannot hold: {advice}")


def _sample(job: _Job, weights: F32Array, encoded: U8Array) -> None:
    rows, cols = weights.shape
    kind = job.spec.type
    found = decode(encoded[: tensor_bytes(kind, weights.shape)], rows, cols, kind)
    job.changed += float(np.square(found - weights, dtype=np.float64).sum())
    job.weights += float(np.square(weights, dtype=np.float64).sum())


def _sample_panels(job: _Job, before: U8Array, panels: U8Array) -> None:
    """The first rows of a matrix, before and after."""
    if block_type(job.info.type).quantized:
        rows, columns = min(SAMPLE_ROWS, job.info.shape[-2]), job.info.shape[-1]
        count = tensor_bytes(job.info.type, (rows, columns))
        _sample(job, decode(before[:count], rows, columns, job.info.type), panels)


def _converted(job: _Job, nbytes: int, chosen: Recipe) -> Converted:
    """What became of a tensor; of one that was quantized also how."""
    how = _fate(job, chosen)
    error = (job.changed / job.weights) ** 0.5 if how and not job.copied and job.weights else None
    return Converted(job.spec.name, job.spec.shape, job.spec.type, nbytes, job.fallback, how, error)


def _fate(job: _Job, chosen: Recipe) -> Kept | None:
    if not block_type(job.info.type).quantized:
        return None
    if job.copied:
        return Kept(kept.EXACT, job.info.type)
    reason = f"{chosen.name} was asked for; this adds to what {job.info.type} has lost already"
    return Kept(kept.ENCODED, job.info.type, reason)


def _metadata(
    file: File,
    chosen: Recipe,
    jobs: list[_Job],
    calibration: Calibration | None,
    method: str,
    smooth: float | None,
) -> dict[str, Any]:
    """The file's, which says what it was made from and how."""
    provenance = {**file.metadata.get("provenance", {}), "recipe": chosen.name, "tool": f"edgeq {VERSION}"}
    if calibration is not None:
        corpora = [{"name": corpus.name, "tokens": corpus.tokens} for corpus in calibration.corpora]
        provenance["calibration"] = {"method": method, "tokens": calibration.tokens, "corpora": corpora}
        if smooth is not None:
            provenance["calibration"]["smoothing"] = smooth
    if fates := [(how, job.spec.type, None) for job in jobs if (how := _fate(job, chosen))]:
        provenance["quantized"] = "; ".join(kept.summary(fates))
    metadata = {**file.metadata, "provenance": provenance}
    if "gguf" in metadata:  # what an export needs to write the same types again: those of matrices are others now
        vectors = {job.spec.name for job in jobs if len(job.spec.shape) == 1}
        types = metadata["gguf"].get("types", {})
        types = types if isinstance(types, dict) else {}
        metadata["gguf"] = {**metadata["gguf"], "types": {name: t for name, t in types.items() if name in vectors}}
    return metadata


def _assets(file: File) -> dict[str, bytes]:
    """The file's; what a GGUF file said of its matrices' types is not so any more, nor what calibration saw."""

    def fail(what: str) -> NoReturn:
        raise FormatError(f"{file.path}: the asset {METADATA_ASSET} {what}: import the model again")

    assets = {name: file.asset(name) for name in file.assets if name != CALIBRATION}
    if METADATA_ASSET in assets:
        assets[METADATA_ASSET] = without_keys(assets[METADATA_ASSET], _tells_types, fail)
    return assets


def _tells_types(key: str) -> bool:
    return key == "general.file_type" or key.startswith("quantize.")
