"""`.eqf` files to GGUF: the inverse of an import, and the way to GGUF for what was converted from a checkpoint."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.gguf_decode import can_narrow, narrow
from edgeq.blocks.gguf_types import BY_NAME
from edgeq.blocks.panels import unpack_panels
from edgeq.blocks.reference import decode, encode, to_gguf, to_plain
from edgeq.blocks.table import BLOCK_TYPES, GROUP, PANEL_ROWS, BlockType, block_type
from edgeq.container.gguf_values import ALIGNMENT, ALIGNMENT_KEY, ARRAY, BOOL, F32, I32, STRING, U32, Cursor, Typed
from edgeq.container.gguf_values import render_metadata as render
from edgeq.container.gguf_writer import GgufSpec, GgufWriter
from edgeq.container.reader import File, TensorInfo, open_file
from edgeq.errors import FormatError, TokenizerError, UnsupportedError, UsageError
from edgeq.gguf.importer import METADATA, PLAIN, POOLINGS, neighbours, pieces_of, rotated_heads
from edgeq.gguf.rearranger import TO_BLOCKS, Rearranger
from edgeq.gguf.sampling import sampling_metadata
from edgeq.models import Architecture, architecture, gguf_xielu
from edgeq.models.composition import Model
from edgeq.models.gguf import scores_factor, write_config
from edgeq.models.gguf_architectures import exported
from edgeq.models.gguf_gemma3n import rows_added, unread
from edgeq.models.gguf_hooks import is_routed, mamba_of
from edgeq.models.gguf_places import FUSED, KV_B, Place, places, split, turns
from edgeq.models.gguf_rope import factor_tensors
from edgeq.models.image_tower import is_of_images
from edgeq.models.matrix import check_tensors, layers_held
from edgeq.text.gguf_vocabulary import tokenizer_metadata
from edgeq.text.sentence import SENTENCE_FILES, read_sentence_settings
from edgeq.text.tokenizer import FILES

CHUNK_ROWS = 512  # a multiple of a panel's

Bytes = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int, int, int], None]


@dataclass(frozen=True)
class Fallback:
    """What becomes of matrices that GGUF cannot hold: the block type's replacement in GGUF, and its encoder, which
    gives u8 [rows, row_bytes] of f32 [rows, cols]."""

    types: Mapping[str, str]
    encode: Callable[[npt.NDArray[np.float32], str], Bytes]


def _encode(weights: npt.NDArray[np.float32], name: str) -> Bytes:
    rows, cols = weights.shape
    return to_gguf(encode(weights, name), rows, cols, name).reshape(rows, -1)


# Types whose blocks in GGUF are wider than rows need be, or that it has not
AS_Q8_0 = Fallback({bt.name: "Q8_0" for bt in BLOCK_TYPES.values() if bt.gguf_columns not in (1, GROUP)}, _encode)


@dataclass(frozen=True)
class Exported:
    """A tensor as it was written, of which of ours; `again` if weights had to be encoded again; `pieces` if rows of
    these take turns, in how many. Its first row is `repeated` so often at its end."""

    name: str
    shape: tuple[int, ...]
    type: str
    parts: tuple[str, ...]
    again: bool = False
    pieces: int = 1
    repeated: int = 0


@dataclass(frozen=True)
class Report:
    """What an export did. `nbytes` is the file's."""

    path: str
    architecture: str
    tensors: list[Exported]
    nbytes: int
    notes: list[str] = field(default_factory=list)


def export_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    fallback: Fallback | None = None,
    allow_no_tokenizer: bool = False,
    tokenizer: bool = True,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Report:
    """Write the `.eqf` file `source` as the GGUF file `out`: the same blocks, bit for bit.

    An imported model gets back all its metadata. GGUF's k-quants need rows of a multiple of 256 weights; with a
    `fallback` other matrices are encoded again. `tokenizer` may be left out. `announce` hears one line if a kernel must
    be compiled first. Raises UnsupportedError for an
    architecture, a rope scaling or rows that GGUF cannot hold, TokenizerError for such a tokenizer unless
    `allow_no_tokenizer`, UsageError for an `out` that is the source, OutputError if it cannot be written.
    """
    with open_file(source) as file:
        if os.path.exists(out) and os.path.samefile(file.path, out):
            raise UsageError(f"{os.fspath(out)}: is the model itself: give another name for the output")
        if os.fspath(out).endswith(".eqf"):
            raise UsageError(f"{os.fspath(out)}: an export writes a .gguf file: name it so")
        if file.requires:  # what its tensors mean without these, no reader of GGUF could know
            what = f"{file.path}: requires {', '.join(file.requires)}, which GGUF has no word for"
            raise UnsupportedError(f"{what}: run the .eqf file, or convert the checkpoint again without")
        model = architecture(file.metadata["config"], file.path)
        mamba = mamba_of(model) if isinstance(model, Model) else None
        both_ways, routed = not model.heads.causal, isinstance(model, Model) and is_routed(model)
        name, entry = exported(file.metadata["architecture"], file.path, mamba is not None, both_ways, routed)
        shapes = {tensor.name: tensor.shape for tensor in file.tensors.values()}
        layers = layers_held(model.num_hidden_layers, file.metadata["config"])
        check_tensors(shapes, model.tensors, layers, file.path)
        notes: list[str] = []
        keys, metadata, alignment = _metadata(file, model, name, tokenizer, allow_no_tokenizer, notes)
        fused = _recorded(file, "fused", list, entry.fused)
        if not {*fused} <= {whole for whole, _ in FUSED}:
            raise FormatError(f"{file.path}: its header names tensors of GGUF that there are not: import it again")
        groups = mamba.shape.groups if mamba else 1
        heads = model.heads.num_attention_heads, model.heads.num_key_value_heads
        targets = [
            replace(
                target(file, place, fallback, groups, heads[0]), pieces=pieces_of(place, model) if place.woven else 1
            )
            for place in places([one for one in file.tensors if _is_exported(one)], entry, fused)
        ]
        own = model if isinstance(model, Model) else None
        targets = [_longer(tensor, rows_added(own)) for tensor in targets]
        if any(map(is_of_images, file.tensors)):
            notes.append("what reads images is left out: the GGUF file reads text alone")
        if any(info.activation_scale is not None for info in file.tensors.values()):
            notes.append("GGUF has no word for scales of activations: readers take each token's own")
        factors = {} if METADATA in file.assets else factor_tensors(file.metadata["config"], own)
        spare = [_empty(*one, targets) for one in unread(own).items() if one[0] not in file.tensors]
        specs = [GgufSpec(t.name, t.shape, t.type) for t in targets]
        specs += [spec for spec, _ in spare]
        specs += [GgufSpec(name, (len(values),), "F32") for name, values in factors.items()]
        total, done = sum(info.nbytes for info in file.tensors.values()), 0
        rearranger = Rearranger(TO_BLOCKS, announce, total)
        factor = scores_factor(model, entry) if isinstance(model, Model) else 1.0
        with GgufWriter(out, metadata, keys, specs, alignment) as writer:
            for index, tensor in enumerate(targets):
                woven: list[npt.NDArray[Any]] = []
                for part, nth in _in_order(file, tensor):
                    if turns(tensor.name, part.name):
                        woven.append(_turned(file, part, heads[0], tensor.type))
                        continue
                    reordered = rotated_heads(part.name, entry, *heads)
                    scale = factor if entry.scaled and split(part.name)[1] == entry.scaled else 1.0
                    chunks = _chunks(file, part, nth, tensor.type, reordered, fallback, rearranger, scale)
                    if tensor.pieces > 1 or woven:
                        woven.append(np.concatenate(list(chunks)))
                        continue
                    first: npt.NDArray[Any] | None = None
                    for chunk in chunks:
                        writer.write(chunk)
                        first = chunk[:1] if first is None else first
                    if tensor.repeated and first is not None:
                        writer.write(np.repeat(first, tensor.repeated, axis=0))
                if woven:
                    rows = [part.reshape(tensor.pieces, -1, part.shape[-1]) for part in woven]
                    writer.write(np.ascontiguousarray(np.concatenate(rows, axis=1)))
                done += sum(file.tensors[part].nbytes for part in tensor.parts)
                if progress:
                    progress(tensor.name, index, len(targets), done, total)
            for _, nbytes in spare:
                writer.write(np.zeros(nbytes, np.uint8))
            for values in factors.values():
                writer.write(np.array(values, "<f4"))
        return Report(os.fspath(out), name, targets, writer.nbytes, notes)


def _is_exported(name: str) -> bool:
    return not gguf_xielu.is_said(name) and not is_of_images(name)


def _recorded(file: File, key: str, kind: type, otherwise: Any) -> Any:
    """What an import recorded in the header. FormatError for what it would not have written there."""
    found = file.metadata.get("gguf", {}).get(key, otherwise)
    values = found.values() if isinstance(found, dict) else found
    if not isinstance(found, kind | tuple) or not all(isinstance(value, str) for value in values):
        raise FormatError(
            f"{file.path}: {key!r} of its header's metadata is not what an import writes: import it again"
        )
    return found


def _metadata(
    file: File, model: Architecture, name: str, tokenizer: bool, allow_no_tokenizer: bool, notes: list[str]
) -> tuple[int, bytes, int]:
    """Number of keys, the metadata's bytes, and the alignment of tensors."""
    if METADATA in file.assets:
        return _kept(file)
    config = file.metadata["config"]
    title = str(file.metadata.get("provenance", {}).get("source", "edgeq"))
    values: dict[str, Any] = {"general.architecture": name, "general.name": title, "general.quantization_version": 2}
    said = gguf_xielu.gathered(file.tensors, model.num_hidden_layers, lambda one: float(file.data(one).view("<f4")[0]))
    values |= write_config(config | said, file.path, notes)
    assets = {asset: file.asset(asset) for asset in file.assets}
    values |= sampling_metadata(assets)
    if not model.classifier and (assets.keys() & SENTENCE_FILES or not model.heads.causal):
        values |= _pooling(file, model, name, assets, notes)
    vocabulary: dict[str, Any] = {"tokenizer.ggml.model": "none"}
    if tokenizer and assets.keys() & {*FILES}:
        try:
            vocabulary = tokenizer_metadata(assets, model.vocab_size, file.path, notes)
        except TokenizerError as error:
            if not allow_no_tokenizer:
                raise
            notes.append(f"the tokenizer is left out: {error}")
    values |= vocabulary
    return len(values), render({key: _typed(value) for key, value in values.items()}), ALIGNMENT


def _pooling(
    file: File, model: Architecture, name: str, assets: Mapping[str, bytes], notes: list[str]
) -> dict[str, Any]:
    """How states become a text's vector; `notes` gets what GGUF has no key for."""
    try:
        settings = read_sentence_settings(assets, model.heads.causal)
    except (TokenizerError, UnsupportedError) as error:
        raise type(error)(f"{file.path}: {error}") from None
    numbers = {pooling: number for number, pooling in POOLINGS.items()}
    if settings.pooling not in numbers:
        notes.append(f"GGUF has no {settings.pooling} pooling: readers will take another")
    if settings.normalize:
        notes.append("GGUF cannot say that vectors get the length 1: ask the reader for it")
    if settings.max_length and settings.max_length < model.max_position_embeddings:
        most = f"{settings.max_length} tokens: readers take up to {model.max_position_embeddings}"
        notes.append(f"GGUF cannot say that texts are cut to {most}")
    return {f"{name}.pooling_type": numbers[settings.pooling]} if settings.pooling in numbers else {}


def _kept(file: File) -> tuple[int, bytes, int]:
    """As `_metadata`, what the import kept."""

    def fail(what: str) -> Any:
        raise FormatError(f"{file.path}: the asset {METADATA} {what}: import the model again")

    data = file.asset(METADATA)
    cursor = Cursor(memoryview(data), fail)
    cursor.take(16, "its header")
    keys = cursor.count(13, "metadata keys")
    start, alignment = cursor.at, ALIGNMENT
    for _ in range(keys):
        key = cursor.string("a key")
        value = cursor.value(cursor.number(U32, key), key)
        if key == ALIGNMENT_KEY:
            alignment = value
    return keys, data[start:], alignment


def _typed(value: Any) -> Typed:
    """A plain value with the type that GGUF's readers expect."""
    if isinstance(value, list):
        elements = {str: STRING, bool: BOOL, float: F32, int: I32}  # an empty list is one of texts: there are no merges
        return Typed(ARRAY, value, elements[type(value[0])] if value else STRING)
    kind = {bool: BOOL, int: U32, float: F32, str: STRING}[type(value)]
    return Typed(kind, value)


def target(file: File, place: Place, fallback: Fallback | None, groups: int = 1, heads: int = 1) -> Exported:
    """How a tensor is written; `groups` are those of norms in Mamba layers, `heads` those of an attention.
    UnsupportedError if GGUF cannot hold it as it is and there is no fallback for that."""
    infos = [file.tensors[part] for part in place.parts]
    shape, axis = infos[0].shape, max(len(infos[0].shape) - 2, 0)
    shapes = [place.shape_there(info.name, info.shape, heads) for info in infos]
    shape = (*shapes[0][:axis], sum(one[axis] for one in shapes), *shapes[0][axis + 1 :])
    if len(shape) == 1:
        original = _recorded(file, "types", dict, {}).get(infos[0].name, "F32")
        if place.flat:
            stem, suffix = split(infos[0].name)[1:]
            if suffix == ".bias":
                rows = file.tensors[infos[0].name.removesuffix("bias") + "weight"].shape[0]
            else:
                rows = groups if stem == "ssm_norm" else shape[0]
            shape = (rows, shape[0] // rows)
        return Exported(place.name, shape, original if original in ("F16", "BF16") else "F32", place.parts)
    if split(place.name)[1] == KV_B:
        return _woven(file, place, infos, shape, fallback)
    types = [_writable(file, info, fallback) for info in infos]
    widest = max(types, key=lambda name: BY_NAME[name].row_bytes(shape[-1]))
    if len(set(types)) > 1 and fallback is None:
        what = f"GGUF has {' and '.join(place.parts)} as one tensor, these are {', '.join(types)}"
        raise UnsupportedError(f"{file.path}: {what}: --fallback encodes them again")
    again = any(info.type != widest and not can_narrow(info.type, widest) for info in infos)
    if place.flat and len(place.parts) > 1:
        shape = (len(place.parts), shape[0] // len(place.parts), shape[1])
    elif place.flat:  # a vector there, or matrices of heads
        shape = shape[1:] if shape[0] == 1 else (heads, shape[0] // heads, shape[1])
    return Exported(place.name, shape, widest, place.parts, again)


def _woven(
    file: File, place: Place, infos: Sequence[TensorInfo], shape: tuple[int, ...], fallback: Fallback | None
) -> Exported:
    """Keys and values of latent attention's heads: blocks along rows are none along columns."""
    types = {info.type for info in infos}
    kind = types.pop() if len(types) == 1 and types <= {*PLAIN} else "F16"
    again = any(info.type != kind for info in infos)
    if again and fallback is None:
        what = f"GGUF has {' and '.join(place.parts)} as one tensor, the first turned"
        raise UnsupportedError(f"{file.path}: {what}: --fallback encodes them again, as {kind}")
    return Exported(place.name, shape, kind, place.parts, again)


def _turned(file: File, info: TensorInfo, heads: int, kind: str) -> Bytes:
    """u8 [heads * columns, row_bytes] of the type `kind`: a matrix whose rows become columns, head by head."""
    rows, cols = info.shape
    weights = decode(file.data(info.name), rows, cols, info.type).reshape(heads, rows // heads, cols)
    turned = np.ascontiguousarray(weights.transpose(0, 2, 1)).reshape(heads * cols, -1)
    return np.ascontiguousarray(to_plain(turned, kind)).view(np.uint8)


def _empty(name: str, shape: tuple[int, ...], targets: Sequence[Exported]) -> tuple[GgufSpec, int]:
    """A tensor of zeros, of the type that the first layer's has, and its bytes."""
    kind = next(one.type for one in targets if split(one.name)[1] == split(name)[1])
    return GgufSpec(name, shape, kind), prod(shape[:-1]) * BY_NAME[kind].row_bytes(shape[-1])


def _longer(tensor: Exported, added: Mapping[str, int]) -> Exported:
    """With the rows that are added to it."""
    rows = added.get(tensor.name, 0)
    return replace(tensor, shape=(tensor.shape[0] + rows, *tensor.shape[1:]), repeated=rows) if rows else tensor


def _writable(file: File, info: TensorInfo, fallback: Fallback | None) -> str:
    """The type of a matrix in GGUF."""
    original = _recorded(file, "types", dict, {}).get(info.name, "")
    if can_narrow(info.type, original):
        return str(original)
    try:
        block_type(info.type).gguf_bytes(*info.shape[-2:])
    except UnsupportedError as error:
        if fallback is None or info.type not in fallback.types:
            raise UnsupportedError(f"{file.path}: {info.name}: {error}: --fallback encodes it again") from None
        return fallback.types[info.type]
    return info.type


def _in_order(file: File, tensor: Exported) -> Iterator[tuple[TensorInfo, int]]:
    """The tensors whose rows follow one another, and which of their matrices (those of experts) it is."""
    infos = [file.tensors[part] for part in tensor.parts]
    for nth in range(prod(infos[0].shape[:-2])):
        for info in infos:
            yield info, nth


def _chunks(
    file: File,
    info: TensorInfo,
    nth: int,
    kind: str,
    heads: int,
    fallback: Fallback | None,
    rearranger: Rearranger,
    scale: float = 1.0,
) -> Iterator[npt.NDArray[Any]]:
    """The bytes of a vector, times `scale`, or of the matrix `nth` as GGUF has them in the type `kind`, some rows at a
    time."""
    data = file.data(info.name)
    if len(info.shape) == 1:
        vector = data.view("<f4") if scale == 1.0 else data.view("<f4") * np.float32(scale)
        values = neighbours(vector[:, None], heads).reshape(-1) if heads else vector
        yield np.ascontiguousarray(to_plain(values, kind))
        return
    rows, cols = info.shape[-2:]
    bt = block_type(info.type)
    panel = bt.panel_bytes(cols)
    step = lcm(CHUNK_ROWS, rows // heads) if heads else CHUNK_ROWS
    matrix = data.reshape(-1, bt.tensor_bytes(rows, cols))[nth]
    for first in range(0, rows, step):
        count = min(step, rows - first)
        part = matrix[first // PANEL_ROWS * panel : -(-(first + count) // PANEL_ROWS) * panel]
        if can_narrow(info.type, kind):
            lines = narrow(unpack_panels(part, count, cols, bt), kind).reshape(count, -1)
        elif kind != info.type and fallback:
            lines = fallback.encode(decode(part, count, cols, info.type), kind)
        else:
            lines = (rearranger.to_blocks if bt.quantized else _plain)(part, count, cols, bt).reshape(count, -1)
        yield neighbours(lines, heads * count // rows) if heads else lines


def _plain(part: Bytes, rows: int, cols: int, bt: BlockType) -> Bytes:
    return to_gguf(part, rows, cols, bt.name)
