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
    padded: int = 0  # values of an f32 row that is padded

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
        self.padded: dict[tuple[int, int], list[np.ndarray]] = {}  # by rows, and values of a row

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
            nbytes, before = rows * padded * 4, self.padded.get((rows, width))
            memory = before.pop() if before else self.take(nbytes) if padded == width else self.new(nbytes)
            buffer.rows = memory[:nbytes].view(np.float32).reshape(rows, padded)
            buffer.padded = width if padded != width else 0
        if packed:
            buffer.words = self.take(rows * padded)
            buffer.sums = self.take(rows * padded // GROUP * SUMS_BYTES)
        return buffer

    def release(self, memory: Buffer | np.ndarray) -> None:
        """Nothing reads this any more. Rows whose padding has to stay zero, in the next pass too, are used again by
        their like alone."""
        pieces = memory.pieces if isinstance(memory, Buffer) else [memory]
        if isinstance(memory, Buffer) and memory.padded:
            rows, *pieces = pieces
            self.padded.setdefault((len(rows), memory.padded), []).append(rows.reshape(-1).view(np.uint8))
        for piece in pieces:
            self.free.append(piece.reshape(-1).view(np.uint8))
