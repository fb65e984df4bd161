"""Rows that GGUF has in another order: of queries and keys by the rotary embedding, of woven tensors by heads."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.models import Architecture
from edgeq.models.composition import Model
from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_hooks import delta_shape
from edgeq.models.gguf_places import KV_B, Place, split

_ROTATED = re.compile(r"blk\.\d+\.attn_(q|k)\.(weight|bias)")


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
