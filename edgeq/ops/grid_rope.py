"""Rotary position embedding of rows that lie in a grid, as the patches of an image: the first half of each head is
rotated by a row's column, the second by its row. Its steps are those of queries alone in rope.py."""

from dataclasses import dataclass

import numpy as np

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op
from edgeq.graph.row_tables import TOKENS
from edgeq.graph.value import Value
from edgeq.ops import rope
from edgeq.ops.rope import Args, Rope, shared_tables


@dataclass(frozen=True)
class RotateInGrid(Op):
    """x, heads of `head_dim` values, each half of which is rotated by `rope`, in place."""

    x: Value
    head_dim: int
    rope: Rope

    @property
    def reads(self) -> tuple[Value, ...]:
        return ()

    @property
    def changes(self) -> Value:
        return self.x

    def lower(self, low: Lowering, out: Value) -> None:
        x, tables = low.buffer(self.x), int(shared_tables(low, self.rope).ctypes.data)
        for half, places in enumerate(low.tables.with_places(low.context)):
            args = Args(
                q=x.address + half * self.head_dim // 2 * 4,
                q_stride=x.stride,
                k=0,
                v=0,
                kv_stride=0,
                heads=self.x.width // self.head_dim,
                kv_heads=0,
                head_dim=self.head_dim,
                tables=tables,
                query_tables=tables,
                half=len(self.rope.inverse_frequencies),
                interleaved=int(self.rope.interleaved),
                keys=0,
                values=0,
                places=low.places,
                pages=0,
                positions=int(places.ctypes.data),
                tokens=low.tables.count(TOKENS),
            )
            low.tape.add(f"rope:{low.kv}", args, [], [x])


def reference(x: np.ndarray, tables: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The NumPy twin: x [tokens, heads, head_dim], `tables` as `rope_tables` gives them for half a head, places
    [2, tokens], the columns and the rows."""
    halves = np.split(x, 2, axis=2)
    return np.concatenate([rope.reference(h, tables[at], False) for h, at in zip(halves, places, strict=True)], axis=2)
