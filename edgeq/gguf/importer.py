"""GGUF files to `.eqf`: blocks are re-arranged without loss, a few rows at a time; nothing is computed again, but
scales of NVFP4 that are too far apart (`nvfp4_scales.py`)."""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.container.gguf_reader import GgufFile, open_gguf
from edgeq.container.gguf_values import METADATA_ASSET, without_tensors
from edgeq.container.writer import Writer
from edgeq.container.written import Sizes
from edgeq.errors import TokenizerError, UnsupportedError, UsageError
from edgeq.gguf.import_images import with_images
from edgeq.gguf.import_plan import Job, fused_tensors, plan
from edgeq.gguf.import_rows import as_held, runs, vector_of
from edgeq.gguf.rearranger import TO_PANELS, Rearranger
from edgeq.gguf.sampling import sampling_assets
from edgeq.models import Architecture, architecture
from edgeq.models.gguf import read_config
from edgeq.models.gguf_architectures import known
from edgeq.models.gguf_encoders import RANK
from edgeq.models.matrix import layers_held
from edgeq.system import environment
from edgeq.text.gguf_tokenizer import has_tokenizer, tokenizer_assets
from edgeq.text.tokenizer import beyond_notes, load_tokenizer
from edgeq.version import VERSION

POOLINGS = {1: "mean", 2: "cls", 3: "last"}  # GGUF's numbers of how states become one vector
# (tensor's name, its index, number of tensors, bytes done, bytes in all)
Progress = Callable[[str, int, int, int, int], None]


@dataclass(frozen=True)
class Imported:
    """A tensor as it was written: its type in GGUF and here, and how the one became the other."""

    name: str
    shape: tuple[int, ...]
    source_type: str
    type: str
    how: str
    nbytes: int


@dataclass(frozen=True)
class Report(Sizes[Imported]):
    """What an import did. `nbytes` is the file's, `source_bytes` the GGUF files'; `seconds` the time it took."""

    path: str
    architecture: str
    nbytes: int
    source_bytes: int
    seconds: float
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Examined:
    """What becomes of a GGUF model: `config.json`, the model, its small files and tensors, and what is said of it."""

    config: dict[str, Any]
    model: Architecture
    assets: dict[str, bytes]
    jobs: list[Job]
    notes: list[str]


def examine(file: GgufFile, allow_no_tokenizer: bool = False, tokenizer: bool = True) -> Examined:
    """Check whether a GGUF model can be imported. Raises what `import_gguf` does of the model; without `tokenizer` that
    is not looked at."""
    config = read_config(file.metadata, _shapes(file), lambda name: vector_of(file, name).tolist(), file.path)
    model = architecture(config, file.path)
    _, entry = known(file.metadata, file.path)
    assets, notes = _assets(file, config, model, allow_no_tokenizer) if tokenizer else ({}, [])
    if entry.older:
        assets.pop(METADATA_ASSET, None)
        notes.append("an older layout, with keys and values of all heads in one tensor: an export writes the newer")
    jobs, left_out = plan(file, model, entry, layers_held(model.num_hidden_layers, config))
    return Examined(config, model, assets, jobs, notes + left_out)


def import_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    threads: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    allow_no_tokenizer: bool = False,
    mmproj: str | os.PathLike[str] | None = None,
) -> Report:
    """Import the GGUF model `source`, any of its files if it is split, as the file `out`; `mmproj` is a GGUF file of
    what it sees with.

    `out` appears whole or not at all. `announce` hears one line if a kernel must be compiled first. Raises FormatError
    for a damaged file or missing tensors, UnsupportedError for an architecture or a type that cannot be held,
    TokenizerError for a tokenizer that cannot run here (unless `allow_no_tokenizer`), UsageError for an `out` that is
    part of the source, OutputError if it cannot be written.
    """
    started = time.perf_counter()
    threads = threads or environment.threads() or environment.processors()
    with open_gguf(source) as file, open_gguf(mmproj) if mmproj else nullcontext() as seeing:
        files = [*file.files, *(seeing.files if seeing else ())]
        if os.path.exists(out) and any(os.path.samefile(part, out) for part in files):
            raise UsageError(f"{os.fspath(out)}: is the GGUF file itself: give another name for the output")
        if os.fspath(out).lower().endswith(".gguf"):
            raise UsageError(f"{os.fspath(out)}: an import writes an .eqf file: name it so")
        found = examine(file, allow_no_tokenizer)
        metadata, of_images = _metadata(file, found.config, found.model, found.jobs), list[Job]()
        if seeing:
            of_images, config = with_images(file, seeing, found.config, found.assets)
            metadata["config"] = config
        jobs = found.jobs + of_images
        with Writer(out, [job.spec for job in jobs], metadata, found.assets) as writer:
            _write_all(file, found.jobs, writer, threads, progress, announce)
            if seeing:
                _write_all(seeing, of_images, writer, threads, progress, announce)
        tensors = [
            Imported(
                j.spec.name, j.spec.shape, j.tensor.type.name, j.spec.type, j.how, writer.tensor_bytes(j.spec.name)
            )
            for j in jobs
        ]
        seconds = time.perf_counter() - started
        sizes = writer.nbytes, file.nbytes + (seeing.nbytes if seeing else 0)
        return Report(os.fspath(out), found.model.name, *sizes, seconds, found.notes, tensors=tensors)


def _shapes(file: GgufFile) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in file.tensors.values()}


def _assets(
    file: GgufFile, config: dict[str, Any], model: Architecture, allow_no_tokenizer: bool
) -> tuple[dict[str, bytes], list[str]]:
    """The small files of the model, and what there is to say about them."""
    assets = {"config.json": json.dumps(config, indent=2).encode()}
    notes: list[str] = []
    if has_tokenizer(file.metadata):
        try:
            found = tokenizer_assets(file.metadata, file.path)
            notes += beyond_notes(load_tokenizer(found, file.path, model.vocab_size), model.vocab_size)
            assets |= found
        except TokenizerError as error:
            if not allow_no_tokenizer:
                raise
            notes.append(f"the tokenizer is left out, the model runs on token ids only: {error}")
    else:
        notes.append("the file has no tokenizer: the model runs on token ids only")
    assets |= sampling_assets(file.metadata, assets)
    if pooling := file.metadata.get(f"{file.metadata['general.architecture']}.pooling_type"):
        if not isinstance(pooling, int) or pooling not in {RANK, *POOLINGS}:
            what = f"has pooling_type {str(pooling)[:20]}, which is not supported"
            raise UnsupportedError(f"{file.path}: {what}: take a model that embeds texts")
        if pooling in POOLINGS:
            assets["pooling_config.json"] = json.dumps({"pooling_mode": POOLINGS[pooling]}).encode()
    assets[METADATA_ASSET] = without_tensors(file.keys, file.metadata_bytes)
    return assets, notes


def _metadata(file: GgufFile, config: dict[str, Any], model: Architecture, jobs: list[Job]) -> dict[str, Any]:
    """The header's metadata; `gguf` says what an export needs to write the same file again."""
    others = {
        job.spec.name: job.tensor.type.name for job in jobs if job.tensor.type.name != job.spec.type and job.comes_back
    }
    fused = fused_tensors(file, model)
    name = Path(file.path).resolve().name
    provenance = {"source": name, "recipe": "imported from GGUF", "tool": f"edgeq {VERSION}"}
    return {
        "architecture": model.name,
        "config": config,
        "provenance": provenance,
        "gguf": {"architecture": file.metadata["general.architecture"], "types": others, "fused": fused},
    }


def _write_all(
    file: GgufFile,
    jobs: list[Job],
    writer: Writer,
    threads: int,
    progress: Progress | None,
    announce: Callable[[str], None] | None,
) -> None:
    """Turn and write the tensors on all threads, each tensor by one of them, the largest ones first."""
    total, done, lock, stop = sum(job.nbytes for job in jobs), 0, threading.Lock(), threading.Event()
    rearranger = Rearranger(TO_PANELS, announce, total)

    def write(place: tuple[int, Job]) -> None:
        nonlocal done
        index, job = place
        for nth, rows in runs(file, job):
            if stop.is_set():
                return
            writer.write(job.spec.name, as_held(file, job, nth, rows, rearranger))
            with lock:
                done += rows.nbytes
                if progress:
                    progress(job.spec.name, index, len(jobs), done, total)
        if job.nbytes == job.tensor.nbytes:
            file.release(job.tensor.name)

    largest_first = sorted(enumerate(jobs), key=lambda place: -place[1].nbytes)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in pool.map(write, largest_first):
                pass
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
