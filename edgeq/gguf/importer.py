"""GGUF files to `.eqf`: blocks are re-arranged without loss, a few rows at a time; nothing is computed again."""

import json
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgeq
from edgeq import environment
from edgeq.blocks.gguf_decode import decode_blocks, mxfp4_fits, mxfp4_weights, widen
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.reference import encode, from_gguf
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.gguf_reader import GgufFile, GgufTensor, open_gguf
from edgeq.container.gguf_values import MAGIC, VERSION
from edgeq.container.writer import TensorSpec, Writer
from edgeq.container.written import Sizes
from edgeq.errors import CheckpointError, FormatError, TokenizerError, UnsupportedError, UsageError
from edgeq.gguf.rearrange import TO_PANELS, Rearranger
from edgeq.kernels.encode_api import encode_panels, prepare
from edgeq.models import Architecture, architecture
from edgeq.models.gguf import GgufArchitecture, known, read_config
from edgeq.text.gguf_tokenizer import has_tokenizer, tokenizer_assets
from edgeq.text.tokenizer import load_tokenizer

CHUNK_BYTES = 1 << 20  # of blocks turned at a time: what a core keeps in its cache
METADATA = "metadata.gguf"  # asset: the file's metadata as a GGUF file without tensors
EXACT, WIDENED, ENCODED = "exact", "exact in a wider type", "encoded again"

U8 = npt.NDArray[np.uint8]
# (tensor's name, its index, number of tensors, bytes done, bytes in all)
Progress = Callable[[str, int, int, int, int], None]
_ROTATED = re.compile(r"blk\.\d+\.attn_(q|k)\.(weight|bias)")


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
class _Job:
    """One tensor: what it becomes and how. `heads` that its rows are of, where these must be re-ordered, else 0."""

    tensor: GgufTensor
    spec: TensorSpec
    how: str
    heads: int = 0


def import_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    threads: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    allow_no_tokenizer: bool = False,
) -> Report:
    """Import the GGUF model `source`, any of its files if it is split, as the file `out`.

    `out` appears whole or not at all. `announce` hears one line if encoders must be compiled first. Raises FormatError
    for a damaged file or missing tensors, UnsupportedError for an architecture or a type that cannot be held,
    TokenizerError for a tokenizer that cannot run here (unless `allow_no_tokenizer`), UsageError for an `out` that is
    part of the source, OutputError if it cannot be written.
    """
    started = time.perf_counter()
    threads = threads or environment.threads() or _processors()
    with open_gguf(source) as file:
        if os.path.exists(out) and any(os.path.samefile(part, out) for part in file.files):
            raise UsageError(f"{os.fspath(out)}: is the GGUF file itself: give another name for the output")
        config = read_config(file.metadata, _shapes(file), lambda name: _vector(file, name).tolist(), file.path)
        model = architecture(config, file.path)
        _, entry = known(file.metadata, file.path)
        assets, notes = _assets(file, config, model, allow_no_tokenizer)
        jobs, left_out = _plan(file, model, entry)
        notes += left_out
        with Writer(out, [job.spec for job in jobs], _metadata(file, config, model, jobs), assets) as writer:
            prepare({job.spec.type for job in jobs if job.how == ENCODED}, announce)
            _write_all(file, jobs, writer, threads, progress, announce)
        tensors = [
            Imported(
                j.spec.name, j.spec.shape, j.tensor.type.name, j.spec.type, j.how, writer.tensor_bytes(j.spec.name)
            )
            for j in jobs
        ]
        seconds = time.perf_counter() - started
        return Report(os.fspath(out), model.name, writer.nbytes, file.nbytes, seconds, notes, tensors=tensors)


def _shapes(file: GgufFile) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in file.tensors.values()}


def _vector(file: GgufFile, name: str) -> npt.NDArray[np.float32]:
    """f32 [n] of a vector."""
    tensor = file.tensors[name]
    data = np.ascontiguousarray(file.data(name)).reshape(-1)
    if tensor.type.name == "F32":
        return data.view("<f4")
    if tensor.type.name == "F16":
        return data.view("<f2").astype(np.float32)
    if tensor.type.name == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    raise UnsupportedError(f"{file.path}: the vector {name!r} has type {tensor.type.name}: F32, F16, BF16 are possible")


def _assets(
    file: GgufFile, config: dict[str, Any], model: Architecture, allow_no_tokenizer: bool
) -> tuple[dict[str, bytes], list[str]]:
    """The small files of the model, and what there is to say about them."""
    assets = {"config.json": json.dumps(config, indent=2).encode()}
    notes: list[str] = []
    if has_tokenizer(file.metadata):
        try:
            found = tokenizer_assets(file.metadata, file.path)
            load_tokenizer(found, file.path, model.vocab_size)
            assets |= found
        except TokenizerError as error:
            if not allow_no_tokenizer:
                raise
            notes.append(f"the tokenizer is left out, the model runs on token ids only: {error}")
    else:
        notes.append("the file has no tokenizer: the model runs on token ids only")
    assets[METADATA] = struct.pack("<4sIQQ", MAGIC, VERSION, 0, file.keys) + file.metadata_bytes
    return assets, notes


def _metadata(file: GgufFile, config: dict[str, Any], model: Architecture, jobs: list[_Job]) -> dict[str, Any]:
    """The header's metadata; `gguf` says what an export needs to write the same file again."""
    others = {job.spec.name: job.tensor.type.name for job in jobs if job.tensor.type.name != job.spec.type}
    name = Path(file.path).resolve().name
    provenance = {"source": name, "recipe": "imported from GGUF", "tool": f"edgeq {edgeq.__version__}"}
    return {
        "architecture": model.name,
        "config": config,
        "provenance": provenance,
        "gguf": {"architecture": file.metadata["general.architecture"], "types": others},
    }


def _plan(file: GgufFile, model: Architecture, entry: GgufArchitecture) -> tuple[list[_Job], list[str]]:
    """The tensors to write, in the file's order, and which are left out."""
    expected = {name: tensor.shape for name, tensor in model.tensors.items()}
    for name, shape in expected.items():
        if name not in file.tensors:
            raise FormatError(f"{file.path}: has no tensor {name}: the file is incomplete, convert the model again")
        if file.tensors[name].shape != shape:
            has = list(file.tensors[name].shape)
            raise FormatError(f"{file.path}: tensor {name} is {has}, its metadata says {list(shape)}: convert it again")
    jobs, left_out = [], []
    for tensor in file.tensors.values():
        heads = rotated_heads(tensor.name, entry, model.heads.num_attention_heads, model.heads.num_key_value_heads)
        try:
            kind, how = _held(file, tensor)
        except UnsupportedError as error:
            if tensor.name in expected:
                raise
            left_out.append(f"left out, as the model does not use it: {tensor.name} ({error})")
            continue
        jobs.append(_Job(tensor, TensorSpec(tensor.name, tensor.shape, kind), how, heads))
    return jobs, left_out


def _held(file: GgufFile, tensor: GgufTensor) -> tuple[str, str]:
    """The type that a tensor gets here, and how. UnsupportedError if it cannot be held."""
    where, kind = f"{file.path}: tensor {tensor.name}", tensor.type
    if len(tensor.shape) > 3:
        raise UnsupportedError(f"{where} has {len(tensor.shape)} dimensions, one to three are possible")
    if len(tensor.shape) == 1:
        if kind.name not in ("F32", "F16", "BF16"):
            raise UnsupportedError(f"{where} is a vector of type {kind.name}: F32, F16, BF16 are possible")
        return "F32", EXACT if kind.name == "F32" else WIDENED
    if not kind.held:
        raise UnsupportedError(f"{where} has type {kind.name}, which cannot be held: take another quantization")
    if not block_type(kind.held).accepts(tensor.shape[-1]):
        raise UnsupportedError(f"{where} has rows of {tensor.shape[-1]}, no multiple of 32: take an F16 file")
    if kind.name == "MXFP4" and not all(mxfp4_fits(rows) for _, rows in _chunks(file, tensor, 1)):
        return "BF16", WIDENED
    if kind.native:
        return kind.held, EXACT
    return kind.held, WIDENED if kind.exact else ENCODED


def _chunks(file: GgufFile, tensor: GgufTensor, unit: int) -> Iterator[tuple[int, U8]]:
    """(first row, u8 [rows, row_bytes]) of runs of rows, each a multiple of `unit` and of a panel's rows."""
    data, rows = file.data(tensor.name), tensor.shape[-2]
    unit = lcm(unit, PANEL_ROWS)
    step = max(CHUNK_BYTES // data.shape[1] // unit, 1) * unit
    for first in range(0, len(data), rows):  # the matrices of experts follow one another
        for start in range(first, first + rows, step):
            yield start, data[start : min(start + step, first + rows)]


def _write_all(
    file: GgufFile,
    jobs: list[_Job],
    writer: Writer,
    threads: int,
    progress: Progress | None,
    announce: Callable[[str], None] | None,
) -> None:
    """Turn and write the tensors on all threads, each tensor by one of them, the largest ones first."""
    rearranger = Rearranger(TO_PANELS, announce)
    total, done, lock, stop = sum(job.tensor.nbytes for job in jobs), 0, threading.Lock(), threading.Event()

    def write(place: tuple[int, _Job]) -> None:
        nonlocal done
        index, job = place
        for rows in _pieces(file, job):
            if stop.is_set():
                return
            writer.write(job.spec.name, _turn(file, job, rows, rearranger))
            with lock:
                done += rows.nbytes
                if progress:
                    progress(job.spec.name, index, len(jobs), done, total)
        file.release(job.tensor.name)

    largest_first = sorted(enumerate(jobs), key=lambda place: -place[1].tensor.nbytes)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for _ in pool.map(write, largest_first):
                pass
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _pieces(file: GgufFile, job: _Job) -> Iterator[U8]:
    if len(job.tensor.shape) == 1:
        yield file.data(job.tensor.name)
        return
    head_dim = job.tensor.shape[0] // job.heads if job.heads else 1
    for _, rows in _chunks(file, job.tensor, head_dim):
        yield rows


def _turn(file: GgufFile, job: _Job, rows: U8, rearranger: Rearranger) -> npt.NDArray[Any]:
    """What is written for a run of rows: panels, or the values of a vector."""
    if len(job.tensor.shape) == 1:
        vector = _vector(file, job.tensor.name)
        return halves(vector[:, None], job.heads).reshape(-1) if job.heads else vector
    count, cols, name = len(rows), job.tensor.shape[-1], job.tensor.type.name
    if job.heads:
        rows = halves(rows, job.heads * count // job.tensor.shape[0])
    if job.how == EXACT:
        bt = block_type(name)
        return rearranger.to_panels(rows, count, cols, bt) if bt.quantized else from_gguf(rows, count, cols, name)
    if job.how == ENCODED:
        weights = decode_blocks(rows, count, cols, name)
        if not np.isfinite(weights).all():
            raise CheckpointError(
                f"{file.path}: tensor {job.spec.name} holds a weight that is not finite: it is damaged"
            )
        return encode_panels(weights, job.spec.type)
    if job.spec.type == "BF16":
        return encode(mxfp4_weights(rows, count, cols), "BF16")
    return pack_panels(widen(rows, count, cols, name), block_type(job.spec.type))


def rotated_heads(name: str, entry: GgufArchitecture, heads: int, kv_heads: int) -> int:
    """Heads that the rows of a tensor are of, if GGUF has them in another order; else 0."""
    match = _ROTATED.fullmatch(name) if entry.interleaved else None
    return 0 if match is None else heads if match[1] == "q" else kv_heads


def halves(rows: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows of q or k [heads * head_dim, ...] from neighbours (2i, 2i + 1) of each head to halves (i, i + n / 2)."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def neighbours(rows: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """The inverse of `halves`."""
    pairs = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def _processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
