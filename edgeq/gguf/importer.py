"""GGUF files to `.eqf`: blocks are re-arranged without loss, a few rows at a time; nothing is computed again, but
scales of NVFP4 that are too far apart (`nvfp4_scales.py`)."""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import lcm, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq import environment
from edgeq.blocks.fields import Fields, decode_fields
from edgeq.blocks.gguf_decode import widen
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.reference import decode, encode, from_gguf
from edgeq.blocks.table import PANEL_ROWS, block_type
from edgeq.container.gguf_reader import GgufFile, GgufTensor, open_gguf
from edgeq.container.gguf_values import METADATA_ASSET, without_tensors
from edgeq.container.header import TENSOR_NAME
from edgeq.container.writer import TensorSpec, Writer
from edgeq.container.written import Sizes
from edgeq.errors import FormatError, TokenizerError, UnsupportedError, UsageError
from edgeq.gguf import nvfp4_scales
from edgeq.gguf.rearranger import TO_PANELS, Rearranger
from edgeq.gguf.sampling import sampling_assets
from edgeq.models import Architecture, architecture
from edgeq.models.composition import Model
from edgeq.models.gguf import read_config
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_architectures import known
from edgeq.models.gguf_encoders import RANK
from edgeq.models.gguf_hooks import delta_shape
from edgeq.models.gguf_places import FUSED, KV_B, Place, places, split, turns
from edgeq.models.matrix import layer_past_the_last, layers_held
from edgeq.text.gguf_tokenizer import has_tokenizer, tokenizer_assets
from edgeq.text.tokenizer import beyond_notes, load_tokenizer
from edgeq.version import VERSION

NAMED = 20  # tensors that are told one by one
CHUNK_BYTES = 1 << 20  # of blocks turned at a time: what a core keeps in its cache
METADATA = METADATA_ASSET
POOLINGS = {1: "mean", 2: "cls", 3: "last"}  # GGUF's numbers of how states become one vector
EXACT, WIDENED, ROUNDED = "exact", nvfp4_scales.EXACT, nvfp4_scales.ROUNDED
TURNED = "turned, rounded to F16"

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
    """One tensor: what it is made from, what it becomes and how. `first`: where its rows begin in each matrix that it
    is made from. `heads` that its rows are of, where these must be re-ordered, else 0. `pieces`: in how many its rows
    lie, one in each of so many equal parts of the matrix, if that is not one. `factors`: of NVFP4, what each matrix is
    multiplied by; `error`: how far its scales are rounded, of all of them (RMS). `turned`: its rows are columns there,
    piece by piece."""

    tensor: GgufTensor
    spec: TensorSpec
    how: str
    first: int = 0
    heads: int = 0
    pieces: int = 1
    factors: npt.NDArray[np.float32] | None = None
    error: float = 0.0
    turned: bool = False

    @property
    def of_piece(self) -> int:
        """Rows there that it has of each piece."""
        return self.spec.shape[-1] if self.turned else self.rows // self.pieces

    @property
    def rows(self) -> int:
        """Of each matrix; values of a vector."""
        return self.spec.shape[-2] if len(self.spec.shape) > 1 else self.spec.shape[0]

    @property
    def comes_back(self) -> bool:
        """Whether it has another type here than there, and an export can write its own blocks again."""
        same = self.how not in (ROUNDED, TURNED) and (self.factors is None or bool((self.factors == 1).all()))
        return same and self.tensor.type.name != self.spec.type

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return self.tensor.nbytes * prod(self.spec.shape) // prod(self.tensor.shape)


@dataclass(frozen=True)
class Examined:
    """What becomes of a GGUF model: `config.json`, the model, its small files and tensors, and what is said of it."""

    config: dict[str, Any]
    model: Architecture
    assets: dict[str, bytes]
    jobs: list[_Job]
    notes: list[str]


def examine(file: GgufFile, allow_no_tokenizer: bool = False, tokenizer: bool = True) -> Examined:
    """Check whether a GGUF model can be imported. Raises what `import_gguf` does of the model; without `tokenizer` that
    is not looked at."""
    config = read_config(file.metadata, _shapes(file), lambda name: _vector(file, name).tolist(), file.path)
    model = architecture(config, file.path)
    _, entry = known(file.metadata, file.path)
    assets, notes = _assets(file, config, model, allow_no_tokenizer) if tokenizer else ({}, [])
    if entry.older:
        assets.pop(METADATA, None)
        notes.append("an older layout, with keys and values of all heads in one tensor: an export writes the newer")
    jobs, left_out = _plan(file, model, entry, layers_held(model.num_hidden_layers, config))
    return Examined(config, model, assets, jobs, notes + left_out)


def import_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    threads: int | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    allow_no_tokenizer: bool = False,
) -> Report:
    """Import the GGUF model `source`, any of its files if it is split, as the file `out`.

    `out` appears whole or not at all. `announce` hears one line if a kernel must be compiled first. Raises FormatError
    for a damaged file or missing tensors, UnsupportedError for an architecture or a type that cannot be held,
    TokenizerError for a tokenizer that cannot run here (unless `allow_no_tokenizer`), UsageError for an `out` that is
    part of the source, OutputError if it cannot be written.
    """
    started = time.perf_counter()
    threads = threads or environment.threads() or environment.processors()
    with open_gguf(source) as file:
        if os.path.exists(out) and any(os.path.samefile(part, out) for part in file.files):
            raise UsageError(f"{os.fspath(out)}: is the GGUF file itself: give another name for the output")
        if os.fspath(out).lower().endswith(".gguf"):
            raise UsageError(f"{os.fspath(out)}: an import writes an .eqf file: name it so")
        found = examine(file, allow_no_tokenizer)
        jobs, metadata = found.jobs, _metadata(file, found.config, found.model, found.jobs)
        with Writer(out, [job.spec for job in jobs], metadata, found.assets) as writer:
            _write_all(file, jobs, writer, threads, progress, announce)
        tensors = [
            Imported(
                j.spec.name, j.spec.shape, j.tensor.type.name, j.spec.type, j.how, writer.tensor_bytes(j.spec.name)
            )
            for j in jobs
        ]
        seconds = time.perf_counter() - started
        sizes = writer.nbytes, file.nbytes
        return Report(os.fspath(out), found.model.name, *sizes, seconds, found.notes, tensors=tensors)


def _shapes(file: GgufFile) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in file.tensors.values()}


def _vector(file: GgufFile, name: str) -> npt.NDArray[np.float32]:
    """f32 [n] of all values of a tensor that is not quantized."""
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
    assets[METADATA] = without_tensors(file.keys, file.metadata_bytes)
    return assets, notes


def _metadata(file: GgufFile, config: dict[str, Any], model: Architecture, jobs: list[_Job]) -> dict[str, Any]:
    """The header's metadata; `gguf` says what an export needs to write the same file again."""
    others = {
        job.spec.name: job.tensor.type.name for job in jobs if job.tensor.type.name != job.spec.type and job.comes_back
    }
    fused = _fused(file, model)
    name = Path(file.path).resolve().name
    provenance = {"source": name, "recipe": "imported from GGUF", "tool": f"edgeq {VERSION}"}
    return {
        "architecture": model.name,
        "config": config,
        "provenance": provenance,
        "gguf": {"architecture": file.metadata["general.architecture"], "types": others, "fused": fused},
    }


def _plan(file: GgufFile, model: Architecture, entry: GgufArchitecture, layers: int) -> tuple[list[_Job], list[str]]:
    """The tensors to write, in the file's order, and what is said of those that the model does not use; those of more
    than so many layers are refused."""
    expected = {name: tensor.shape for name, tensor in model.tensors.items()}
    known_places = {place.name: place for place in places(list(expected), entry, _fused(file, model))}
    for place in known_places.values():
        _check(file, place, expected, model.heads.num_attention_heads)
    if surplus := layer_past_the_last(file.tensors, layers):
        what = f"tensor {surplus[:80]!r} belongs to no layer: block_count is {layers}"
        raise FormatError(f"{file.path}: {what}: convert the model again, or download it again")
    factors = nvfp4_scales.factors(file)
    jobs: list[_Job] = []
    left_out: list[str] = []
    for tensor in file.tensors.values():
        if tensor.name in factors:
            continue
        found = known_places.get(tensor.name)
        if found is None and tensor.name in expected:
            raise FormatError(f"{file.path}: has {tensor.name} beside the tensor that holds it: convert it again")
        if found is None and tensor.name.endswith((".bias", ".scale")):
            raise UnsupportedError(f"{file.path}: has {tensor.name}, which {model.name} is not computed with here")
        try:
            if found is None and not TENSOR_NAME.match(tensor.name):
                raise UnsupportedError("a name that an .eqf file cannot have")
            jobs += _jobs(file, tensor, found or Place(tensor.name, (tensor.name,)), expected, model, entry, factors)
        except UnsupportedError as error:
            if found:
                raise
            left_out.append(f"left out, as the model does not use it: {tensor.name[:80]} ({error})")
    if len(left_out) > NAMED:
        left_out[NAMED:] = [f"{len(left_out) - NAMED} more tensors are left out, as the model does not use them"]
    if errors := [job.error for job in jobs if job.error]:
        what = f"NVFP4 scales are rounded in {len(errors)} tensor{'s' * (len(errors) > 1)}"
        left_out.append(f"{what}, RMS error up to {max(errors):.2%} of the weights")
    return jobs, left_out


def _fused(file: GgufFile, model: Architecture) -> list[str]:
    """Tensors of FUSED that this file has instead of ours."""
    here = {split(name)[1] for name in file.tensors}
    wanted = {split(name)[1] for name in model.tensors}
    return [whole for whole, ours in FUSED if whole in here and ours[0] not in here and wanted.issuperset(ours)]


def _check(file: GgufFile, place: Place, expected: Mapping[str, tuple[int, ...]], attending: int) -> None:
    """FormatError if the file's tensor is missing or has another shape than the model's have together."""
    if place.name not in file.tensors:
        old = place.name.replace("_exps.", ".0.")  # the first expert's own, before 2024-04
        if old != place.name and old in file.tensors:
            raise UnsupportedError(
                f"{file.path}: has a tensor per expert, like {old}, an old layout: convert the model again, or take a "
                "newer file"
            )
        raise FormatError(f"{file.path}: has no tensor {place.name}: the file is incomplete, convert the model again")
    shapes = [place.shape_there(part, expected[part], attending) for part in place.parts]
    axis = max(len(shapes[0]) - 2, 0)
    shape = (*shapes[0][:axis], sum(one[axis] for one in shapes), *shapes[0][axis + 1 :])
    has = file.tensors[place.name].shape
    if has != shape and not (place.flat and prod(has) == prod(shape)):
        what = f"tensor {place.name} is {list(has)}, its metadata says {list(shape)}"
        raise FormatError(f"{file.path}: {what}: convert it again")


def _jobs(
    file: GgufFile,
    tensor: GgufTensor,
    place: Place,
    expected: Mapping[str, tuple[int, ...]],
    model: Architecture,
    entry: GgufArchitecture,
    factors: dict[str, npt.NDArray[np.float32]],
) -> Iterator[_Job]:
    """A tensor, or those that it holds one after the other."""
    first = 0
    error = 0.0
    factor = nvfp4_scales.factor_of(tensor, factors) if tensor.type.name == nvfp4_scales.NAME else None
    for name in place.parts:
        shape = expected.get(name, tensor.shape)
        if place.flat:
            tensor = replace(tensor, shape=(len(place.parts) * shape[0], *shape[1:]))
        kind, how = _held(file, tensor, name)
        heads = rotated_heads(name, entry, model.heads.num_attention_heads, model.heads.num_key_value_heads)
        pieces = pieces_of(place, model) if place.woven else 1
        if factor is not None:
            error = nvfp4_scales.error_of(file, tensor, factor)
            how = ROUNDED if error else WIDENED
        turned = turns(place.name, name)
        if turned and kind not in PLAIN:
            kind, how = "F16", TURNED
        job = _Job(tensor, TensorSpec(name, shape, kind), how, first, heads, pieces, factor, error, turned)
        yield job
        first += job.of_piece


PLAIN = ("F32", "F16", "BF16")
# Matrices that are not multiplied as others are
AS_F32 = ("shortconv.conv", "ssm_conv1d", "ssm_a", "position_embd", "token_types")


def _held(file: GgufFile, tensor: GgufTensor, name: str) -> tuple[str, str]:
    """The type that a tensor gets here, where it is `name`, and how. UnsupportedError if it cannot be held."""
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
    if split(name)[1] in AS_F32 and kind.name != "F32":
        raise UnsupportedError(f"{where} has type {kind.name}, it must be F32: convert the model again")
    return kind.held, EXACT if kind.native else WIDENED


def _chunks(file: GgufFile, tensor: GgufTensor, unit: int, first: int = 0, rows: int = 0) -> Iterator[tuple[int, U8]]:
    """(which matrix, u8 [rows, row_bytes]) of runs of rows, each a multiple of `unit` and of a panel's rows: of all
    rows of the tensor, or of `rows` ones from `first` on in each of its matrices (those of experts follow one another).
    """
    every = tensor.shape[-2]
    data, rows = file.data(tensor.name).reshape(prod(tensor.shape[:-2]), every, -1), rows or every
    unit = lcm(unit, PANEL_ROWS)
    step = max(CHUNK_BYTES // data.shape[2] // unit, 1) * unit
    for nth, matrix in enumerate(data):
        for start in range(first, first + rows, step):
            yield nth, matrix[start : min(start + step, first + rows)]


def _write_all(
    file: GgufFile,
    jobs: list[_Job],
    writer: Writer,
    threads: int,
    progress: Progress | None,
    announce: Callable[[str], None] | None,
) -> None:
    """Turn and write the tensors on all threads, each tensor by one of them, the largest ones first."""
    total, done, lock, stop = sum(job.nbytes for job in jobs), 0, threading.Lock(), threading.Event()
    rearranger = Rearranger(TO_PANELS, announce, total)

    def write(place: tuple[int, _Job]) -> None:
        nonlocal done
        index, job = place
        for nth, rows in _pieces(file, job):
            if stop.is_set():
                return
            writer.write(job.spec.name, _turn(file, job, nth, rows, rearranger))
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


def _pieces(file: GgufFile, job: _Job) -> Iterator[tuple[int, U8]]:
    if len(job.spec.shape) == 1:
        yield 0, file.data(job.tensor.name)
        return
    if job.pieces > 1 or job.turned:
        rows = file.data(job.tensor.name).reshape(job.pieces, job.tensor.shape[0] // job.pieces, -1)
        picked = rows[:, job.first : job.first + job.of_piece].reshape(job.pieces * job.of_piece, -1)
        yield 0, np.ascontiguousarray(picked)
        return
    head_dim = job.rows // job.heads if job.heads else 1
    yield from _chunks(file, job.tensor, head_dim, job.first, job.rows)


def _turn(file: GgufFile, job: _Job, nth: int, rows: U8, rearranger: Rearranger) -> npt.NDArray[Any]:
    """What is written for a run of rows of the matrix `nth`: panels, or the values of a vector."""
    if len(job.spec.shape) == 1:
        vector = _vector(file, job.tensor.name)[job.first : job.first + job.rows]
        return halves(vector[:, None], job.heads).reshape(-1) if job.heads else vector
    count, cols, name = len(rows), job.tensor.shape[-1], job.tensor.type.name
    if job.heads:
        rows = halves(rows, job.heads * count // job.rows)
    if job.turned:
        pieces = _weights(job, nth, rows).reshape(job.pieces, job.of_piece, cols)
        return encode(np.ascontiguousarray(pieces.transpose(0, 2, 1)).reshape(job.spec.shape), job.spec.type)
    if job.how == EXACT:
        bt = block_type(name)
        return rearranger.to_panels(rows, count, cols, bt) if bt.quantized else from_gguf(rows, count, cols, name)
    return pack_panels(_widened(job, nth, rows), block_type(job.spec.type))


def _widened(job: _Job, nth: int, rows: U8) -> Fields:
    fields = widen(rows, len(rows), job.tensor.shape[-1], job.tensor.type.name)
    return fields if job.factors is None else nvfp4_scales.times(fields, job.factors[nth])


def _weights(job: _Job, nth: int, rows: U8) -> npt.NDArray[np.float32]:
    """f32 [rows, columns] of blocks of any type."""
    count, cols, kind = len(rows), job.tensor.shape[-1], job.tensor.type
    if kind.native:
        return decode(from_gguf(rows, count, cols, kind.name), count, cols, kind.name)
    return decode_fields(_widened(job, nth, rows), block_type(kind.held))


def pieces_of(place: Place, model: Architecture) -> int:
    """In how many pieces the rows of a woven tensor's parts lie: one for each head."""
    if split(place.name)[1] in ("attn_q", KV_B):
        return model.heads.num_attention_heads
    shape = delta_shape(model) if isinstance(model, Model) else None
    assert shape is not None, "nothing else is woven"
    return shape.key_heads


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
