"""The KV cache: keys and values of every position, laid out for attention's vectors (see kernels/rope.py)."""

import numpy as np

from edgeq.kernels.layout import KV_BYTES
from edgeq.models.graph import Heads
from edgeq.runtime.memory import aligned, round_up


class KVCache:
    """Keys and values of one layer for `context` positions (a multiple of 16), elements f16 or f32.

    Memory is committed by the system as positions are written.
    """

    def __init__(self, heads: Heads, context: int, kind: str):
        element = KV_BYTES[kind] * heads.num_key_value_heads * context
        self.keys = aligned(element * heads.head_dim)
        self.values = aligned(element * round_up(heads.head_dim, 16))

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


def rope_tables(inverse_frequencies: tuple[float, ...], positions: int, factor: float = 1.0) -> np.ndarray:
    """cos and sin of every position: f32 [positions, 2, half].

    Angles are f32 products, as in the training code whose weights are run.
    """
    frequencies = np.asarray(inverse_frequencies, dtype=np.float64).astype(np.float32)
    angles = (np.arange(positions, dtype=np.float32)[:, None] * frequencies[None, :]).astype(np.float64)
    both = np.stack([np.cos(angles), np.sin(angles)], axis=1) * factor
    return np.ascontiguousarray(both.astype(np.float32))
