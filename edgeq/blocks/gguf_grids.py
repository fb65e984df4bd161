"""The codebooks of GGUF's IQ1, IQ2 and IQ3 types: an index stands for 8 or 4 neighbouring weights, less their signs.

They were found by search, so there is no rule to make them by: `gguf_grids.bin` holds them (`tools/make_grids.py`).
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("gguf_grids.bin")


@dataclass(frozen=True)
class Grid:
    """size: entries; columns: weights of an entry; levels: what they may be; bits: of a level's number."""

    size: int
    columns: int
    levels: tuple[int, ...]

    @property
    def bits(self) -> int:
        return 2 if self.columns == 8 else 3


_IQ2 = (8, 25, 43)
GRIDS = {
    "IQ2_XXS": Grid(256, 8, _IQ2),
    "IQ2_XS": Grid(512, 8, _IQ2),
    "IQ2_S": Grid(1024, 8, _IQ2),
    "IQ3_XXS": Grid(256, 4, (4, 12, 20, 28, 36, 44, 52, 62)),
    "IQ3_S": Grid(512, 4, (1, 3, 5, 7, 9, 11, 13, 15)),
    "IQ1_S": Grid(2048, 8, (-1, 0, 1)),
}


@functools.cache
def _keys(name: str) -> NDArray[np.uint16]:
    """u16 [entries]: the levels' numbers of each entry, the first in the lowest bits."""
    start = 0
    for other, grid in GRIDS.items():
        if other == name:
            return np.frombuffer(FILE.read_bytes()[start : start + 2 * grid.size], "<u2")
        start += 2 * grid.size
    raise KeyError(name)


@functools.cache
def values(name: str) -> NDArray[np.int8]:
    """i8 [entries, columns]: what each index stands for."""
    grid = GRIDS[name]
    numbers = _keys(name)[:, None] >> grid.bits * np.arange(grid.columns) & ((1 << grid.bits) - 1)
    found: NDArray[np.int8] = np.array(grid.levels, np.int8)[numbers]
    return found


@functools.cache
def _indices(name: str) -> NDArray[np.int16]:
    """The index of each key, -1 of those that are not in the grid."""
    found = np.full(1 << 16, -1, np.int16)
    found[_keys(name)] = np.arange(GRIDS[name].size)
    return found


def indices(weights: NDArray[np.int8], name: str) -> NDArray[np.int16]:
    """The inverse of `values`: i8 [..., columns] to indices [...], -1 where no entry is these weights."""
    grid = GRIDS[name]
    number = np.full(256, 1 << 15, np.uint32)  # of a level; what is none makes a key that no entry has
    number[np.array(grid.levels, np.int8).view(np.uint8)] = np.arange(len(grid.levels))
    parts = number[weights.view(np.uint8)] << grid.bits * np.arange(grid.columns, dtype=np.uint32)
    keys = np.minimum(parts.sum(axis=-1), 0xFFFF)
    found: NDArray[np.int16] = _indices(name)[keys]
    return found
