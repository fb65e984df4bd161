"""The KV cache: keys and values of every position, laid out for attention's vectors (see kernels/rope.py)."""

import numpy as np

from edgeq.kernels.layout import KV_BYTES, kv_scale_bytes
from edgeq.models.graph import Heads
from edgeq.runtime.memory import aligned, round_up


class KVCache:
    """Keys and values of one layer for `context` positions (a multiple of 16), elements f16, f32 or q8_0.

    Memory is committed by the system as positions are written.
    """

    def __init__(self, heads: Heads, context: int, kind: str):
        rows, scales = heads.num_key_value_heads * context, kv_scale_bytes(kind, heads.head_dim)
        self.keys = aligned(rows * (KV_BYTES[kind] * heads.head_dim + scales))
        self.values = aligned(rows * (KV_BYTES[kind] * round_up(heads.head_dim, 16) + scales))

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class ConvCache:
    """The rows that a layer's short convolution looks back on: f32 [context, width]."""

    def __init__(self, width: int, context: int):
        self.rows = aligned(context * width * 4)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes


def rope_tables(inverse_frequencies: tuple[float, ...], positions: int, factor: float = 1.0) -> np.ndarray:
    """cos and sin of every position: f32 [positions, 2, half].

    Angles are f32 products, as in the training code whose weights are run.
    """
    frequencies = np.asarray(inverse_frequencies, dtype=np.float64).astype(np.float32)
    result = np.empty((positions, 2, frequencies.size), dtype=np.float32)
    for first in range(0, positions, 4096):  # in slices, so that the f64 values in between stay small
        here = np.arange(first, min(first + 4096, positions), dtype=np.float32)
        angles = (here[:, None] * frequencies[None, :]).astype(np.float64)
        result[first : first + 4096, 0] = np.cos(angles) * factor
        result[first : first + 4096, 1] = np.sin(angles) * factor
    return result
