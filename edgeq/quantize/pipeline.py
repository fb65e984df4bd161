"""Converts a checkpoint to a `.eqf` file, a few thousand rows at a time: memory does not grow with the model."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints import Checkpoint, open_checkpoint
from edgeq.checkpoints.packed import Rows
from edgeq.container.writer import Writer
from edgeq.errors import CheckpointError, UnsupportedError, UsageError
from edgeq.kernels.encode_api import encode_panels, prepare
from edgeq.models import Architecture, Images, images
from edgeq.models.classifier import head_left_out
from edgeq.models.wrapped import WRAPPED
from edgeq.quantize import kept, static_scales
from edgeq.quantize.chunks import Chunk, Sources
from edgeq.quantize.converted import Converted, Report, own
from edgeq.quantize.head import settle_head
from edgeq.quantize.jobs import F32Array, Job, plan, read_ahead
from edgeq.quantize.matching import check_tokenizer, check_unquantized
from edgeq.quantize.narrow import BF16_MAX, F16_MAX
from edgeq.quantize.recipes import RECIPES, Choice, recipe
from edgeq.system import environment
from edgeq.version import VERSION

DEFAULT = "Q4_K_M"  # the recipe of a checkpoint that is not quantized
BESIDE_KEPT = "Q8_0"  # and of what a quantized one does not quantize: head and embedding, whose errors weigh most
KEPT = "kept"  # what the recipe of a quantized one is called
SAMPLE_ROWS = 64  # rows of each chunk in which the error of encoding again is measured

# (tensor's name, its index, number of tensors, f32 bytes of weights converted so far, f32 bytes of all weights)
Progress = Callable[[str, int, int, int, int], None]
# (the checkpoint's small files by name, what to call the checkpoint in messages, rows of the token embedding): what
# there is to say about them
CheckAssets = Callable[[Mapping[str, bytes], str, int], list[str]]


@dataclass(frozen=True)
class Encoded:
    """A tensor that somebody else has encoded: its type, and panels u8 [tensor_bytes]."""

    type: str
    panels: npt.NDArray[np.uint8]


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    type: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    revision: str | None = None,
    allow_no_tokenizer: bool = False,
    announce: Callable[[str], None] | None = None,
    check_assets: CheckAssets | None = None,
    gguf: bool = False,
    activation_scales: Mapping[str, float] = static_scales.NONE,
    vision: bool = True,
) -> Report:
    """Convert the checkpoint `source` (folder, weight file or Hub repository) to the file `out` by a recipe.

    Without a `type` it is Q4_K_M; but a matrix that the checkpoint stores quantized gets the smallest type that keeps
    its codes. Where none does, it becomes Q6_K, or Q8_0 if its codes have more than 4 bits; what that checkpoint does
    not quantize becomes Q8_0. With a `type`, codes are kept where the type that a matrix gets happens to hold them.

    `out` appears whole or not at all; an existing file is replaced at the end. None stands for `NAME-TYPE.eqf` here,
    or `NAME.eqf` where codes are kept. `progress` hears of every chunk, `announce` one line if encoders must be
    compiled first; `check_assets` may refuse the checkpoint's small files before anything is written; `gguf` takes
    types that GGUF can hold; `activation_scales` are those of what matrices read, by their names in the file, where
    their type takes one; `vision` keeps what a model sees images with. Raises UsageError for an unknown `type` or an
    `out` that belongs to the checkpoint; CheckpointError for missing, surplus, misshapen or non-finite tensors;
    UnsupportedError for an unknown architecture, or weights quantized in a way that is unknown; TokenizerError if the
    checkpoint has no tokenizer; OutputError if `out` cannot be written.
    """
    if type is not None:
        recipe(type)  # an unknown one is said before anything is fetched
    with open_checkpoint(source, revision) as checkpoint:
        return convert_open(
            checkpoint,
            out,
            type,
            threads,
            progress,
            revision,
            allow_no_tokenizer,
            announce,
            check_assets,
            gguf,
            activation_scales,
            vision=vision,
        )


def convert_open(
    checkpoint: Checkpoint,
    out: str | os.PathLike[str] | None,
    type: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    revision: str | None = None,
    allow_no_tokenizer: bool = False,
    announce: Callable[[str], None] | None = None,
    check_assets: CheckAssets | None = None,
    gguf: bool = False,
    activation_scales: Mapping[str, float] = static_scales.NONE,
    encoded: Mapping[str, Encoded] | None = None,
    vision: bool = True,
) -> Report:
    """As `convert`, of a checkpoint that is open. Of a tensor in `encoded`, by its name in the file, that is written,
    and not what the checkpoint has."""
    started = time.perf_counter()
    asked = None if type is None else recipe(type)
    threads = threads or environment.threads() or environment.processors()
    encoded = encoded or {}
    keep = asked is None and bool(checkpoint.packed)
    chosen = replace(asked or RECIPES[BESIDE_KEPT if keep else DEFAULT], gguf=gguf)
    label = KEPT if keep else chosen.name
    out = os.fspath(out or default_output(checkpoint.source, "" if keep else (type or chosen.name).upper()))
    _refuse_overwriting(checkpoint, out)
    config, model, notes = settle_head(checkpoint)
    seen, note = _images(checkpoint, config, model) if vision and not gguf else (None, "")
    if config.get("model_type") in WRAPPED and seen is None:
        what = "the language model is converted: it reads text, and nothing else"
        notes.append(f"of this {config['model_type']} {what}{note}")
    if (left_out := head_left_out(config)) is not None:
        notes.append(f"the head of {left_out} is left out: the model embeds texts")
    check_unquantized(checkpoint, model)
    if not allow_no_tokenizer:
        check_tokenizer(checkpoint)
    if check_assets:
        notes += check_assets(checkpoint.assets, checkpoint.source, model.vocab_size)
    wider = {name: Choice(one.type) for name, one in encoded.items()}
    while True:
        jobs, skipped = plan(checkpoint, model, chosen, keep, wider, seen)
        static_scales.check_names(activation_scales, {j.spec.name for j in jobs}, checkpoint.source)
        specs = static_scales.with_scales((j.spec for j in jobs), activation_scales)
        metadata = _metadata(checkpoint, config, model, label, revision, jobs)
        try:
            with Writer(out, specs, metadata, checkpoint.assets) as w:
                for name, one in encoded.items():
                    w.write(name, one.panels)
                left = [j for j in jobs if j.spec.name not in encoded]
                prepare({j.spec.type for j in left if not j.keeps}, announce)
                _convert_all(checkpoint, model, left, w, threads, progress)
            break
        except _TooNarrow as found:
            wider |= found.wider
            if announce:
                what = f"{len(found.wider)} tensors have" if len(found.wider) > 1 else "a tensor has"
                announce(f"{what} weights that the type cannot hold: converting again, with another one for these")
    tensors = [_converted(j, w.tensor_bytes(j.spec.name)) for j in jobs]
    seconds = time.perf_counter() - started
    notes = [*checkpoint.notes, *notes]
    return Report(out, label, model.name, w.nbytes, seconds, skipped, notes, tensors=tensors)


def verify(checkpoint: Checkpoint, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Check that a checkpoint is whole, that its tensors are those of its config.json, and that each weight is finite;
    the result is the names that the model does not need. `progress` hears bytes of f32 read, and in all.

    Raises what `convert` does of the checkpoint.
    """
    _, model, _ = settle_head(checkpoint)
    check_unquantized(checkpoint, model)
    jobs, skipped = plan(checkpoint, model, RECIPES["F32"], keep=False)
    total, done = sum(4 * prod(job.spec.shape) for job in jobs), 0
    for _, job, chunk, rows in read_ahead(Sources(checkpoint, model), jobs):
        if not isinstance(rows, Rows):
            _check_values(checkpoint, job, chunk, rows)
        done += 4 * (chunk.stop - chunk.start) * prod(job.spec.shape[1:][-1:])
        if progress:
            progress(done, total)
    return own(skipped)


def exact_type(checkpoint: Checkpoint) -> str | None:
    """The float type that holds all weights of a checkpoint exactly; None for one that is quantized."""
    if checkpoint.packed:
        return None
    kinds = {ref.dtype for ref in checkpoint.tensors.values() if len(ref.shape) > 1}
    return kinds.pop() if kinds in ({"BF16"}, {"F16"}) else "F32"


def key_of(source: str | os.PathLike[str], revision: str | None = None) -> str:
    """Changes with a checkpoint's files: what was made of it before is not of this one."""
    with open_checkpoint(source, revision) as checkpoint:
        files = [
            (os.path.realpath(file), os.path.getsize(file), os.stat(file).st_mtime_ns) for file in checkpoint.files
        ]
        return repr((checkpoint.source, checkpoint.merged, revision, files, VERSION))


def default_output(source: str | os.PathLike[str], type: str) -> Path:
    """`NAME-TYPE.eqf`, or `NAME.eqf` without TYPE: NAME is that of the checkpoint's folder, file or repository."""
    local = Path(os.path.expanduser(source))
    path = local.resolve() if local.exists() else Path(source)
    name = path.stem if path.is_file() else path.name
    return Path(f"{name}-{type}.eqf" if type else f"{name}.eqf")


def _converted(job: Job, nbytes: int) -> Converted:
    error = job.noise.relative if job.kept and job.kept.how != kept.EXACT else None
    return Converted(job.spec.name, job.spec.shape, job.spec.type, nbytes, job.fallback, job.kept, error)


class _TooNarrow(Exception):
    """Tensors have weights that their types cannot hold. That is known when all was encoded, and is rare: rather than
    read everything twice each time, everything is done again then."""

    def __init__(self, wider: dict[str, Choice]) -> None:
        super().__init__()
        self.wider = wider


def _convert_all(
    checkpoint: Checkpoint,
    model: Architecture,
    jobs: list[Job],
    writer: Writer,
    threads: int,
    progress: Progress | None,
) -> None:
    total, done = sum(4 * prod(j.spec.shape) for j in jobs), 0
    for index, job, chunk, rows in read_ahead(Sources(checkpoint, model), jobs):
        writer.write(job.spec.name, _encoded(checkpoint, job, chunk, rows, threads))
        done += 4 * (chunk.stop - chunk.start) * prod(job.spec.shape[1:][-1:])
        if progress:
            progress(job.spec.name, index, len(jobs), done, total)
    if wider := {j.spec.name: _wider(checkpoint, model, j) for j in jobs if j.loss.past or j.loss.too_small}:
        raise _TooNarrow(wider)


def _wider(checkpoint: Checkpoint, model: Architecture, job: Job) -> Choice:
    """A type for weights that the job's cannot hold. BF16 is better than any that quantizes, and exact for BF16."""
    sources, kind = Sources(checkpoint, model), job.spec.type
    stored = {checkpoint.tensors[sources.name(part.source) or ""].dtype for part in job.tensor.parts}
    exact = stored == {"BF16"} and not job.tensor.add and not job.tensor.ternary
    other = "BF16" if exact or kind not in ("F16", "BF16") else "F32"
    if not job.loss.past:
        return Choice(other, f"its weights are too small for {kind}: {other} instead")
    limit = f"BF16's range ({BF16_MAX:.3g})" if kind == "BF16" else f"F16's range ({F16_MAX:.0f})"
    return Choice(other, f"a weight is past {limit}: {other} instead of {kind}")


def _encoded(checkpoint: Checkpoint, job: Job, chunk: Chunk, rows: F32Array | Rows, threads: int) -> npt.NDArray[Any]:
    """What is written for the rows of a chunk."""
    if isinstance(rows, Rows):
        data = kept.panels_of(rows, job.spec.type)
        if job.kept and job.kept.how != kept.EXACT:
            job.noise.add(rows.first(SAMPLE_ROWS).weights(), data, job.spec.type)
        return data
    _check_values(checkpoint, job, chunk, rows)
    if len(job.spec.shape) == 1:
        return rows
    data = encode_panels(rows, job.spec.type, threads)
    if not job.loss.past:
        job.loss.add(rows, data, job.spec.type, threads)
    if job.kept:
        job.noise.add(rows[:SAMPLE_ROWS], data, job.spec.type)
    return data


def _check_values(checkpoint: Checkpoint, job: Job, chunk: Chunk, rows: F32Array) -> None:
    """CheckpointError if a weight is not finite; the job learns of one that is past its type's range."""
    low, high = float(rows.min()), float(rows.max())
    limit = {"F32": inf, "BF16": BF16_MAX}.get(job.spec.type, F16_MAX)
    if -limit <= low and high <= limit and low != -inf and high != inf:  # a NaN fails the comparisons
        return
    bad = ~np.isfinite(rows)
    where = f"{checkpoint.source}: tensor {chunk.part.source!r}"
    if bad.any():
        place = np.argwhere(bad)[0]
        raise CheckpointError(
            f"{where} holds {rows[tuple(place)]} at {chunk.position(place)}: the checkpoint is damaged"
        )
    job.loss.past = True


def _metadata(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    model: Architecture,
    recipe: str,
    revision: str | None,
    jobs: list[Job],
) -> dict[str, Any]:
    """The header's metadata. Of a local source only the last name: a path says more about a machine than a model."""
    local = Path(os.path.expanduser(checkpoint.source))
    source = local.resolve().name if local.exists() else checkpoint.source
    provenance = {"source": source, "recipe": recipe, "tool": f"edgeq {VERSION}"}
    if revision:
        provenance["revision"] = revision
    if checkpoint.merged:
        provenance["adapters"] = ", ".join(checkpoint.merged)
    if checkpoint.packed:
        found = [(job.kept, job.spec.type, None) for job in jobs if job.kept]
        provenance["quantized"] = "; ".join(kept.summary(found))
    return {"architecture": model.name, "config": config, "provenance": provenance}


def _images(checkpoint: Checkpoint, config: Mapping[str, Any], model: Architecture) -> tuple[Images | None, str]:
    """What a checkpoint's model sees with; None where there is nothing of that, and why, of one that could see."""
    try:
        found = images(config, f"{checkpoint.source}: config.json")
        if found is None:
            return None, ""
        parts = (part for one in found.tensors.values() for part in (*one.parts, *one.instead))
        sources = Sources(checkpoint, model)
        if not any(sources.name(part.source) for part in parts):
            return None, " (the checkpoint has no tensors that images are read with)"
        found.preparation(checkpoint.assets, checkpoint.source)
    except UnsupportedError as error:
        return None, f" ({error})"
    return found, ""


def _refuse_overwriting(checkpoint: Checkpoint, out: str) -> None:
    if not os.path.exists(out):
        return
    for file in checkpoint.files:
        if os.path.samefile(file, out):
            raise UsageError(f"{out}: is a file of the checkpoint itself: give another name for the output")
