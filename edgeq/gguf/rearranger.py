"""GGUF's blocks to panels and back at the speed of memory: the bytes that `edgeq.blocks.reference` gives.

What becomes of each bit is found out by asking that for blocks whose bits tell their own number; one kernel follows the
table that comes of it, whatever the type. NumPy does what the kernel does not: a panel of fewer than 16 rows, a type in
which more than places changes, and all of it where the kernel cannot be compiled, or is not worth it.
"""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.blocks.fields import U8
from edgeq.blocks.reference import from_gguf, to_gguf
from edgeq.blocks.table import GROUP, PANEL_ROWS, SUPER_BLOCK, BlockType, block_type
from edgeq.errors import KernelError
from edgeq.kernels.argument_blocks import Rearrange
from edgeq.toolchain.library import Kernel, missing, prepare

TO_PANELS, TO_BLOCKS = "rearrange:to-panels", "rearrange:to-blocks"
# NumPy turns so much (40 to 240 MB/s) in less time than compiling the kernel takes (3 s on a machine that is not busy)
WORTH_COMPILING = 64 << 20
_MOST_UNITS = 128  # that the kernel reads of a super-block
_WORD = 32  # bits

Bits = NDArray[np.int64]
_Move = tuple[int, int, int, int, int]  # unit made, bit of it, unit read, bit of it, whether it is flipped


class Rearranger:
    """Turns matrices of quantized types, from any thread; the kernel is made ready once."""

    def __init__(
        self, kernel: str, announce: Callable[[str], None] | None = None, nbytes: int = WORTH_COMPILING
    ) -> None:
        """`kernel`: TO_PANELS or TO_BLOCKS; `announce` hears one line if it must be compiled first, which it is where
        `nbytes` in all are worth it."""
        self._kernel: Kernel | None = None
        if nbytes < WORTH_COMPILING and missing([kernel]):
            return
        with contextlib.suppress(KernelError):
            self._kernel = prepare([kernel], announce)[kernel]

    def to_panels(self, data: U8, rows: int, cols: int, bt: BlockType) -> U8:
        """Panels u8 [bt.tensor_bytes(rows, cols)] of blocks u8 [bt.gguf_bytes(rows, cols)]."""
        whole, parts = rows // PANEL_ROWS, _parts(bt.name, cols)
        if self._kernel is None or parts is None or not whole:
            return from_gguf(data, rows, cols, bt.name)
        source, row, panel = np.ascontiguousarray(data).reshape(rows, -1), bt.gguf_bytes(1, cols), bt.panel_bytes(cols)
        out = (np.zeros if any(part.gaps for part in parts) else np.empty)(bt.tensor_bytes(rows, cols), np.uint8)
        for part in parts:
            there = (source.ctypes.data + part.row_start, PANEL_ROWS * row, part.row_step, row)
            here = (out.ctypes.data + part.panel_start, panel, part.panel_step, 0)
            self._run(Rearrange(*there, *here, whole, part.count, part.tables[0].ctypes.data))
        if rows % PANEL_ROWS:
            last = source[whole * PANEL_ROWS :]
            out[whole * panel :] = from_gguf(last, len(last), cols, bt.name)
        return out

    def to_blocks(self, data: U8, rows: int, cols: int, bt: BlockType) -> U8:
        """The inverse of `to_panels`."""
        whole, parts = rows // PANEL_ROWS, _parts(bt.name, cols)
        if self._kernel is None or parts is None or not whole:
            return to_gguf(data, rows, cols, bt.name)
        row, panel = bt.gguf_bytes(1, cols), bt.panel_bytes(cols)
        source, out = np.ascontiguousarray(data), np.empty((rows, row), np.uint8)
        for part in parts:
            here = (source.ctypes.data + part.panel_start, panel, part.panel_step, 0)
            there = (out.ctypes.data + part.row_start, PANEL_ROWS * row, part.row_step, row)
            self._run(Rearrange(*here, *there, whole, part.count, part.tables[1].ctypes.data))
        if rows % PANEL_ROWS:
            last = out[whole * PANEL_ROWS :]
            last[:] = to_gguf(source[whole * panel :], len(last), cols, bt.name).reshape(last.shape)
        return out.reshape(-1)

    def _run(self, args: Rearrange) -> None:
        assert self._kernel is not None
        block = np.array(args, np.int64)
        self._kernel(block.ctypes.data)


@dataclass(frozen=True)
class _Part:
    """Super-blocks of one size: how many there are in a row, where the first one starts in a row of blocks and in a
    panel, how far apart they are, the kernel's tables, to panels and back, and whether these leave bytes of a panel as
    they are."""

    count: int
    row_start: int
    row_step: int
    panel_start: int
    panel_step: int
    tables: tuple[Bits, Bits]
    gaps: bool


@functools.lru_cache(64)
def _parts(name: str, cols: int) -> list[_Part] | None:
    """The full super-blocks of a row, and the short one at its end; None if the kernel cannot do the type."""
    bt, full, found = block_type(name), cols // SUPER_BLOCK, []
    for count, width in ((full, SUPER_BLOCK), (1, cols % SUPER_BLOCK)):
        if count and width:
            tables = _tables(name, width // GROUP)
            if tables is None:
                return None
            first = 0 if width == SUPER_BLOCK else full
            row_step, panel_step = bt.gguf_bytes(1, SUPER_BLOCK), bt.super_block_offset(1)
            gaps = _written(tables[0]) < bt.panel_bytes(width)
            found.append(_Part(count, first * row_step, row_step, first * panel_step, panel_step, tables, gaps))
    return found


def _written(table: Bits) -> int:
    """Bytes of a super-block of a panel that a table writes."""
    numbers, at, nbytes = table.tolist(), 2 + 2 * int(table[0]), 0
    for _ in range(numbers[1]):
        nbytes += PANEL_ROWS * numbers[at + 1]
        at += 4 + 3 * numbers[at + 2]
    return nbytes


# ---- what becomes of each bit ----


@functools.lru_cache(64)
def _tables(name: str, groups: int) -> tuple[Bits, Bits] | None:
    """The kernel's tables for a super-block of so many groups, to panels and back; None if there are none."""
    bt, cols = block_type(name), groups * GROUP
    nbytes = bt.gguf_bytes(1, cols)

    def changed(rows: U8) -> U8:
        """Which bits of the panel differ from that of rows [16, nbytes] of zeros."""
        return from_gguf(rows.reshape(-1), PANEL_ROWS, cols, bt.name) ^ zero

    def places(rows: U8) -> NDArray[np.uint8]:
        return np.unpackbits(changed(np.tile(rows, (PANEL_ROWS, 1))), bitorder="little")

    zero = np.zeros(bt.panel_bytes(cols), np.uint8)
    zero = changed(np.zeros((PANEL_ROWS, nbytes), np.uint8))
    units, words = _units(changed, nbytes), [(min(at, nbytes - 4), 4) for at in range(0, nbytes, 4)]
    if units is None or max(len(units), len(words)) > _MOST_UNITS:
        return None
    numbers = np.arange(8 * nbytes)
    moved, origin = places(np.full(nbytes, 255, np.uint8)), np.zeros(8 * len(zero), np.int64)
    for k in range(int(numbers[-1]).bit_length()):
        origin |= places(np.packbits((numbers >> k & 1).astype(np.uint8), bitorder="little")).astype(np.int64) << k
    sample = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8)
    if (places(sample) != (np.unpackbits(sample, bitorder="little")[origin] & moved)).any():
        return None  # more than places changes
    flips = np.unpackbits(zero, bitorder="little")
    there: dict[int, tuple[int, int, int]] = {}  # bit of a row of blocks -> unit, bit of it, whether it is flipped
    for u, (offset, width) in enumerate(units):
        for bit in range(8 * width):
            place = 8 * offset + bit
            if moved[place]:
                there[int(origin[place])] = u, bit, int(flips[place])
    if len(there) != len(numbers):
        return None
    forth: list[_Move] = []
    back: list[_Move] = []
    for source, (u, bit, flip) in there.items():
        word = min(source // _WORD, len(words) - 1)
        forth.append((u, bit, word, source - 8 * words[word][0], flip))
    for word, (offset, _) in enumerate(words):
        back += [(word, bit, *there[8 * offset + bit]) for bit in range(_WORD)]
    return _table(words, units, forth), _table(units, words, back)


def _units(changed: Callable[[U8], U8], nbytes: int) -> list[tuple[int, int]] | None:
    """(offset, width) of the bytes of a panel's first row; None if those of the others do not follow it."""
    rows = np.zeros((PANEL_ROWS, PANEL_ROWS, nbytes), np.uint8)
    rows[range(PANEL_ROWS), range(PANEL_ROWS)] = 255
    own = [np.flatnonzero(changed(one)) for one in rows]
    runs = np.split(own[0], np.flatnonzero(np.diff(own[0]) != 1) + 1)
    units = [(int(run[0]), len(run)) for run in runs]
    for lane, found in enumerate(own):
        expected = [offset + lane * width + i for offset, width in units for i in range(width)]
        if found.tolist() != expected or not {width for _, width in units} <= {1, 2, 4}:
            return None
    return units


def _table(read: list[tuple[int, int]], made: list[tuple[int, int]], moves: list[_Move]) -> Bits:
    """The kernel's table: see kernels/rearrange.py."""
    terms: dict[int, dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
    flips: dict[int, int] = defaultdict(int)
    for unit, bit, source, place, flip in moves:
        terms[unit][source, (bit - place) % _WORD] |= 1 << bit
        flips[unit] |= flip << bit
    numbers = [len(read), len(made), *(number for unit in read for number in unit)]
    for unit, (offset, width) in enumerate(made):
        numbers += [offset, width, len(terms[unit]), flips[unit]]
        for (source, left), mask in terms[unit].items():
            numbers += [64 * source, left, mask]
    return np.array(numbers, np.int64)
