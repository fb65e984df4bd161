"""The KV cache: keys and values of the positions that tokens still see, laid out for attention's vectors (see
kernels/cache_rows.py)."""

import numpy as np

from edgeq.graph.aligned import aligned, round_up
from edgeq.graph.heads import Heads
from edgeq.kernels.layout import ATTENTION_BLOCK, KV_BYTES, kv_scale_bytes

REWIND = 1024  # tokens by which a session can always go back: an answer that a chat template writes differently


def ring_size(window: int | None, context: int, batch: int) -> int:
    """Positions for which a layer has a place: all of the context, or fewer where a token sees `window` of them.

    Position p has place p % ring. The first token of a batch sees window - 1 positions before it, which the batch must
    not overwrite. Attention's blocks stay in one piece.
    """
    if window is None:
        return context
    return min(context, round_up(window - 1 + max(batch, REWIND), ATTENTION_BLOCK))


class Ring:
    """What a layer keeps of the latest positions: `position_bytes` for each of `ring` places."""

    def __init__(self, window: int | None, context: int, batch: int, position_bytes: int):
        self.window, self.position_bytes = window, position_bytes
        self.ring = ring_size(window, context, batch)

    @property
    def nbytes(self) -> int:
        return self.ring * self.position_bytes

    def holds(self, position: int, reached: int) -> bool:
        """Whether all that a token at `position` sees is here, once there were `reached` positions."""
        first = 0 if self.window is None else max(0, position + 1 - self.window)
        return first == position or first >= reached - self.ring

    def overflowed(self) -> bool:
        """Whether something was kept that its elements cannot hold."""
        return False


class KVCache(Ring):
    """Keys and values of one layer, elements f16, f32 or q8_0; `context` is a multiple of 16, `batch` the most tokens
    that are computed at once.

    Memory is committed by the system as positions are written.
    """

    def __init__(self, heads: Heads, context: int, batch: int, kind: str):
        width, scales = heads.num_key_value_heads, kv_scale_bytes(kind, heads.head_dim)
        keys = width * (KV_BYTES[kind] * heads.head_dim + scales)
        values = width * (KV_BYTES[kind] * round_up(heads.head_dim, 16) + scales)
        super().__init__(heads.sliding_window, context, batch, keys + values)
        self.keys, self.values = aligned(self.ring * keys), aligned(self.ring * values)
        self._heads, self._kind = heads, kind

    def overflowed(self) -> bool:
        """Whether a key or value is past f16's range; of q8_0, a scale is."""
        if self._kind == "f32":
            return False
        keys, values = self.keys, self.values
        if self._kind == "q8_0":  # scales follow a key panel's codes, and a value head's (kernels/cache_rows.py)
            width, head_dim = self._heads.num_key_value_heads, self._heads.head_dim
            keys = keys.reshape(width * self.ring // 16, -1)[:, 16 * head_dim :]
            values = values.reshape(width, -1)[:, self.ring * round_up(head_dim, 16) :]
        return any(bool(np.isinf(np.ascontiguousarray(part).view(np.float16)).any()) for part in (keys, values))


class ConvCache(Ring):
    """The rows that a layer's short convolution of `taps` taps looks back on: f32 [ring, width]."""

    def __init__(self, width: int, taps: int, context: int, batch: int):
        super().__init__(taps, context, batch, 4 * width)
        self.rows = aligned(self.nbytes)


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
