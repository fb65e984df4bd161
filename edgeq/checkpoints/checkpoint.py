"""A Hugging Face checkpoint, opened: configuration, tensors as f32 rows, and the small files beside them."""

import os
import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeq.checkpoints import hub, sentence_modules
from edgeq.checkpoints.experts_apart import experts_apart
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.folder import index_file, index_folder, read_json
from edgeq.checkpoints.quantized import packed_matrices
from edgeq.checkpoints.stored import ELEMENTS, Stored
from edgeq.errors import CheckpointError, NotFoundError
from edgeq.system import endings
from edgeq.system.input import read_bytes

VOCABULARIES = ("spm.model", "vocab.txt", "rwkv_vocab_v20230424.txt")  # not needed beside a tokenizer.json
ASSETS = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "preprocessor_config.json",
    "processor_config.json",
]
# File beside config.json that holds a quantization_config -> its method
QUANTIZATION = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}
# Of a file in a folder within the checkpoint: the asset's name, as assets have no paths
NESTED = {"1_Pooling/config.json": "pooling_config.json"}
TEMPLATES = "additional_chat_templates/*.jinja"  # by their names; the assets are chat_template.NAME.jinja
COMPARED = 1 << 20  # weights compared at a time


@dataclass(frozen=True)
class TensorRef:
    """A tensor of a checkpoint: its Hugging Face name, shape, and element type as safetensors spells it (`BF16`), or
    how it is quantized (`GPTQ 4-bit`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Checkpoint:
    """An open checkpoint.

    source   what open_checkpoint was given
    config   config.json
    tensors  Hugging Face name -> TensorRef; a matrix that is stored quantized in several tensors is one here
    packed   those matrices
    assets   file name -> bytes: those of ASSETS, NESTED and TEMPLATES that the checkpoint has
    files    paths of the weight files and assets
    notes    a line for each contradiction between the files, which says what was taken
    merged   what was added to its weights, see merged.py
    """

    merged: tuple[str, ...] = ()

    def __init__(self, source: str, folder: Path, tensors: dict[str, Stored], notes: Iterable[str] = ()) -> None:
        self.source = source
        self.notes = list(notes)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: no config.json: a checkpoint is a folder with config.json and weights")
        self.config: dict[str, Any] = read_json(folder / "config.json")
        further, modules = sentence_modules.dense_modules(folder)
        if modules:
            tensors, self.config = {**tensors, **further}, {**self.config, sentence_modules.KEY: modules}
        for name, method in QUANTIZATION.items():  # as first versions of the libraries had it
            if not self.config.get("quantization_config") and (folder / name).is_file():
                self.config["quantization_config"] = {"quant_method": method, **read_json(folder / name)}
        tensors = experts_apart(tensors)
        self._files = Files(tensors)
        try:
            self.packed = packed_matrices(self._files, self.config, source)
        except BaseException:
            self._files.close()
            raise
        hidden = {name for matrix in self.packed.values() for name in matrix.stored}
        self.tensors = {t.name: TensorRef(t.name, t.shape, t.dtype) for t in tensors.values() if t.name not in hidden}
        self.tensors |= {m.name: TensorRef(m.name, m.shape, m.kind) for m in self.packed.values()}
        self.assets: dict[str, bytes] = {}
        self.files = sorted({t.path for t in tensors.values()})
        templates = {
            f"{path.parent.name}/{path.name}": f"chat_template.{path.name}"
            for path in sorted(folder.glob(TEMPLATES))
            if re.fullmatch(r"[\w.\-]+", path.name, re.ASCII)
        }
        for place, name in [*((name, name) for name in ASSETS), *NESTED.items(), *templates.items()]:
            if (folder / place).is_file():
                self.assets[name] = _read(folder / place)
                self.files.append(str(folder / place))
        if "tokenizer.json" in self.assets:  # which has the vocabulary too
            for name in VOCABULARIES:
                self.assets.pop(name, None)

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows `start` to `stop` of the first axis as a new f32 array; a vector's rows are its elements.

        Reads just those bytes of the file, of quantized matrices up to all of what they are stored in. KeyError if
        there is no such tensor; CheckpointError if its elements are not floating point or the file became shorter.
        """
        if name in self.packed:
            return self.packed[name].weights(start, stop)
        return self._files.float_rows(name, start, stop)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """All of a tensor as f32."""
        shape = self.tensors[name].shape
        return self.read_rows(name, 0, shape[0] if shape else 1)

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor as it is stored; of a quantized matrix, of all that it is stored in."""
        stored = self.packed[name].stored if name in self.packed else [name]
        found = [self._files.tensors[one] for one in stored if one in self._files.tensors]
        return sum(prod(one.shape) * ELEMENTS[one.dtype].itemsize for one in found)

    def same(self, name: str, other: str) -> bool:
        """Whether two tensors have the same values; those that lie in the same place are not read."""
        place = self._place(name)
        if place is not None and place == self._place(other):
            return True
        shape = self.tensors[name].shape
        if shape != self.tensors[other].shape:
            return False
        step = max(COMPARED // max(prod(shape[1:]), 1), 1)
        pieces = ((start, min(start + step, shape[0])) for start in range(0, shape[0] if shape else 0, step))
        return all(np.array_equal(self.read_rows(name, *rows), self.read_rows(other, *rows)) for rows in pieces)

    def _place(self, name: str) -> Stored | None:
        """Where all that there is to know of a tensor lies; None if that is not one place."""
        return replace(self._files.tensors[name], name="") if name in self._files.tensors else None

    def close(self) -> None:
        """Close the weight files; a later read opens them again."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Opener(os.PathLike[str]):
    """May stand for a source wherever one is named: its path is the source's, and it opens that in its own way."""

    @abstractmethod
    def open(self, revision: str | None = None) -> Checkpoint:
        """The checkpoint."""


def open_checkpoint(source: str | os.PathLike[str], revision: str | None = None) -> Checkpoint:
    """Open a checkpoint's folder, one of its weight files, or a repository of the Hugging Face Hub.

    Reads headers only. `revision` (a branch, tag or commit) is for the Hub. CheckpointError, one line, names what is
    missing or damaged.
    """
    if isinstance(source, Opener):
        return source.open(revision)
    text = os.fspath(source)
    try:
        return _open(text, Path(os.path.expanduser(text)), revision)
    except NotFoundError:
        raise
    except OSError as e:  # a folder that may not be listed or entered
        raise CheckpointError(f"{e.filename or text}: cannot be read: {e.strerror or e}") from None


def _open(text: str, path: Path, revision: str | None) -> Checkpoint:
    if text and path.is_dir():
        if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
            raise CheckpointError(f"{text}: is an adapter, not a model: give the model, and this with --lora")
        return _of_folder(text, path)
    if path.is_file():
        if path.suffix not in endings.CHECKPOINT:
            other = " (`edgeq import` takes .gguf files)" if path.suffix == ".gguf" else ""
            raise CheckpointError(f"{text}: is no checkpoint: give a folder, a .safetensors or .bin file{other}")
        return Checkpoint(text, path.parent, index_file(path))
    if not hub.is_repository(text) or path.suffix in endings.CHECKPOINT:
        hint = ": give a Hub repository as owner/name, not as a URL" if "://" in text else ""
        raise NotFoundError(f"{text}: no such file or folder{hint}")
    folder = hub.fetch(text, revision, [*ASSETS, *QUANTIZATION, *NESTED, TEMPLATES, *sentence_modules.FILES])
    return _of_folder(text, folder)


def _of_folder(text: str, folder: Path) -> Checkpoint:
    notes: list[str] = []
    return Checkpoint(text, folder, index_folder(folder, notes), notes)


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror}") from None
