"""The metadata of an exported GGUF file: made of the model's configuration, or as an import kept it."""

from collections.abc import Mapping
from typing import Any

from edgeq.container.gguf_values import (
    ALIGNMENT,
    ALIGNMENT_KEY,
    ARRAY,
    BOOL,
    F32,
    I32,
    METADATA_ASSET,
    STRING,
    U32,
    Cursor,
    Typed,
)
from edgeq.container.gguf_values import render_metadata as render
from edgeq.container.reader import File
from edgeq.errors import FormatError, TokenizerError, UnsupportedError
from edgeq.gguf.importer import POOLINGS
from edgeq.gguf.sampling import sampling_metadata
from edgeq.models import Architecture, gguf_xielu
from edgeq.models.composition import Embedding, Model
from edgeq.models.gguf import write_config
from edgeq.text.gguf_vocabulary import tokenizer_metadata
from edgeq.text.sentence import SENTENCE_FILES, read_sentence_settings
from edgeq.text.tokenizer import FILES


def metadata_of(
    file: File, model: Architecture, name: str, tokenizer: bool, allow_no_tokenizer: bool, notes: list[str]
) -> tuple[int, bytes, int]:
    """Number of keys, the metadata's bytes, and the alignment of tensors; `notes` gets what GGUF has no word for."""
    if METADATA_ASSET in file.assets:
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
    if isinstance(model, Model) and isinstance(model.embedding, Embedding) and model.embedding.types:
        values["tokenizer.ggml.token_type_count"] = model.embedding.types.rows
    return len(values), render({key: typed(value) for key, value in values.items()}), ALIGNMENT


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
    """As `metadata_of`, what the import kept."""

    def fail(what: str) -> Any:
        raise FormatError(f"{file.path}: the asset {METADATA_ASSET} {what}: import the model again")

    data = file.asset(METADATA_ASSET)
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


def typed(value: Any) -> Typed:
    """A plain value with the type that GGUF's readers expect."""
    if isinstance(value, list):
        elements = {str: STRING, bool: BOOL, float: F32, int: I32}  # an empty list is one of texts: there are no merges
        return Typed(ARRAY, value, elements[type(value[0])] if value else STRING)
    kind = {bool: BOOL, int: U32, float: F32, str: STRING}[type(value)]
    return Typed(kind, value)


def recorded(file: File, key: str, kind: type, otherwise: Any) -> Any:
    """What an import recorded in the header. FormatError for what it would not have written there."""
    found = file.metadata.get("gguf", {}).get(key, otherwise)
    values = found.values() if isinstance(found, dict) else found
    if not isinstance(found, kind | tuple) or not all(isinstance(value, str) for value in values):
        raise FormatError(
            f"{file.path}: {key!r} of its header's metadata is not what an import writes: import it again"
        )
    return found
