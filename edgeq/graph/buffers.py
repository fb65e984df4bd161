"""Memory for activations: rows of f32 or packed int8, in pieces that are used again once nothing reads them."""

from dataclasses import dataclass

import numpy as np

from edgeq.graph.aligned import aligned, round_up
from edgeq.kernels.layout import GROUP, SUMS_BYTES


@dataclass
class Buffer:
    """Rows of f32, and the same rows as packed int8 activations where a quantized matrix reads them; no f32 rows
    where nothing else does."""

    rows: np.ndarray | None
    stride: int
    words: np.ndarray | None = None
    sums: np.ndarray | None = None
    padded: bool = False  # the f32 rows

    @property
    def address(self) -> int:
        """Of the f32 rows; 0 if there are none."""
        return 0 if self.rows is None else int(self.rows.ctypes.data)

    @property
    def words_at(self) -> int:
        """Address of the packed activations' words; 0 if there are none."""
        return 0 if self.words is None else int(self.words.ctypes.data)

    @property
    def sums_at(self) -> int:
        """Address of the packed activations' sums; 0 if there are none."""
        return 0 if self.sums is None else int(self.sums.ctypes.data)

    @property
    def pieces(self) -> list[np.ndarray]:
        return [piece for piece in (self.rows, self.words, self.sums) if piece is not None]


class Scratch:
    """Pieces of memory; `nbytes` of them in all."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.free: list[np.ndarray] = []

    def take(self, nbytes: int) -> np.ndarray:
        """The smallest free piece that is large enough, or a new one."""
        fitting = [i for i, piece in enumerate(self.free) if nbytes <= piece.nbytes <= 2 * nbytes]
        if fitting:
            return self.free.pop(min(fitting, key=lambda i: self.free[i].nbytes))
        return self.new(nbytes)

    def new(self, nbytes: int) -> np.ndarray:
        """Zero bytes that nothing has used."""
        self.nbytes += nbytes
        return aligned(nbytes)

    def buffer(self, rows: int, width: int, plain: bool, packed: bool) -> Buffer:
        """Rows of `width` values, `plain` as f32 and `packed` as int8; where that is padded to 32, f32 rows keep zeros
        in the padding."""
        padded = round_up(width, GROUP)
        buffer = Buffer(None, padded * 4)
        if plain:
            memory = self.take(rows * padded * 4) if padded == width else self.new(rows * padded * 4)
            buffer.padded = padded != width
            buffer.rows = memory[: rows * padded * 4].view(np.float32).reshape(rows, padded)
        if packed:
            buffer.words = self.take(rows * padded)
            buffer.sums = self.take(rows * padded // GROUP * SUMS_BYTES)
        return buffer

    def release(self, memory: Buffer | np.ndarray) -> None:
        """Nothing reads this any more. Rows whose padding has to stay zero, in the next pass too, are nobody else's."""
        pieces = memory.pieces[memory.padded :] if isinstance(memory, Buffer) else [memory]
        for piece in pieces:
            self.free.append(piece.reshape(-1).view(np.uint8))
