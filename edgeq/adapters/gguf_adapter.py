"""Adapters as GGUF files, which llama.cpp's convert_lora_to_gguf.py writes.

They have general.type = adapter, adapter.type = lora, adapter.lora.alpha, and for each matrix, `blk.0.attn_q.weight`,
two tensors: `.lora_a` [rank, columns] and `.lora_b` [rows, rank]. The scale is alpha / rank, 1 where alpha is 0.
"""

import os

import numpy as np

from edgeq.adapters.adapter import F32, Adapter, Pair, checked_pair
from edgeq.blocks.fields import decode_fields
from edgeq.blocks.gguf_decode import widen
from edgeq.blocks.reference import decode, from_gguf
from edgeq.blocks.table import block_type
from edgeq.container.gguf_reader import GgufFile, open_gguf
from edgeq.errors import FormatError, UnsupportedError
from edgeq.ops.passes import LORA_A, LORA_B

TYPE = "adapter"  # general.type


def read_gguf_adapter(path: str | os.PathLike[str]) -> Adapter:
    """The adapter in a file; matrices are called as in GGUF.

    Raises FormatError for a file that is damaged or none of an adapter, UnsupportedError for what is no plain LoRA.
    """
    with open_gguf(path) as file:
        metadata, name = file.metadata, os.fspath(path)
        if metadata.get("general.type") != TYPE:
            raise FormatError(f"{name}: is no adapter (general.type is not {TYPE}): give the adapter's file")
        kind = str(metadata.get("adapter.type"))[:40]
        if kind != "lora":
            raise UnsupportedError(f"{name}: is an adapter of type {kind}: lora can be applied; merge it first")
        if metadata.get("adapter.alora.invocation_tokens"):
            raise UnsupportedError(f"{name}: is an aLoRA, which begins at certain tokens: it cannot be applied")
        alpha = metadata.get("adapter.lora.alpha", 0.0)
        if not isinstance(alpha, int | float) or not np.isfinite(alpha):
            raise FormatError(f"{name}: adapter.lora.alpha is {str(alpha)[:40]}, a number is needed: convert it again")
        pairs = {matrix: _pair(file, name, matrix, float(alpha)) for matrix in _matrices(file, name)}
        architecture = str(metadata.get("general.architecture", ""))
    return Adapter(name, pairs, architecture=architecture)


def _matrices(file: GgufFile, name: str) -> list[str]:
    """The matrices that there are pairs for."""
    found: dict[str, set[str]] = {}
    for tensor in file.tensors:
        end = next((end for end in (LORA_A, LORA_B) if tensor.endswith(end)), None)
        if end is None:
            raise UnsupportedError(f"{name}: tensor {tensor!r} is no LoRA of a matrix: merge the adapter first")
        found.setdefault(tensor.removesuffix(end), set()).add(end)
    if not found:
        raise FormatError(f"{name}: has no tensors: convert the adapter again")
    for matrix, ends in found.items():
        if missing := {LORA_A, LORA_B} - ends:
            raise FormatError(f"{name}: has no tensor {matrix + missing.pop()!r}: convert the adapter again")
    return list(found)


def _pair(file: GgufFile, name: str, matrix: str, alpha: float) -> Pair:
    names = f"{matrix}{LORA_A}", f"{matrix}{LORA_B}"
    a, b = (_floats(file, one) for one in names)
    return checked_pair(a, b, alpha / a.shape[0] if alpha else 1.0, name, names)


def _floats(file: GgufFile, name: str) -> F32:
    """All of a tensor as f32."""
    tensor = file.tensors[name]
    kind, (*_, rows, cols) = tensor.type, (1, *tensor.shape)
    if not kind.held or len(tensor.shape) > 2:
        raise UnsupportedError(f"{file.path}: tensor {name!r} is {kind.name} {list(tensor.shape)}: convert it to F32")
    data = file.data(name)
    if kind.native:
        return decode(from_gguf(data, rows, cols, kind.name), rows, cols, kind.name)
    return decode_fields(widen(data, rows, cols, kind.name), block_type(kind.held))
