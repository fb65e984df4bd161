"""Call kernels as the runtime does, and every instruction set body on any machine. Imports neither Numba nor LLVM."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgeq.blocks.table import block_type
from edgeq.graph.aligned import aligned, bits, round_up
from edgeq.kernels.layout import ROW_SUMS_BYTES, SUMS_BYTES
from edgeq.ops import matmul as linear
from edgeq.ops import pack, pack_tokens
from edgeq.simd import isa
from edgeq.toolchain import library


def address(array: np.ndarray | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


def call(kernel: library.Kernel, args: NamedTuple, threads: int = 1) -> None:
    """Run a kernel, with the argument block of its family, for every thread of a team, one after the other."""
    block = np.array(args, dtype=np.int64)
    for thread in range(threads):
        kernel(block.ctypes.data, thread, threads)


class Body:
    """An instruction set body: `kernel(name)` for tests, really run or with its instructions defined in plain IR."""

    def __init__(self, row: isa.Isa):
        self.isa = row
        self.native = row in isa.available()
        self.kernel: Callable[[str], library.Kernel] = self._native if self.native else self._emulated

    def _native(self, name: str) -> library.Kernel:
        return library.kernel(name, self.isa)

    def _emulated(self, name: str) -> library.Kernel:
        from defined_instructions import emulated  # needs LLVM, which is not wherever kernels run

        self.kernel = emulated(self.isa)
        return self.kernel(name)

    def __repr__(self) -> str:
        return self.isa.name if self.native else f"{self.isa.name}-emulated"


# Those that run here, and those whose instructions are defined above.
BODIES = [Body(row) for row in isa.TABLE if row in isa.available() or row.name.startswith(("avx512", "avxvnni"))]


class PackedTokens:
    """Activations [tokens, columns] quantized with one scale per token, by the kernel of a body; `scale` is that of all
    tokens, where it is given."""

    def __init__(self, body: Body, x: np.ndarray, scale: float = 0.0):
        tokens, columns = x.shape
        self.capacity = round_up(tokens, 16)
        self.rows = np.zeros((self.capacity, columns), np.float32)
        self.rows[:tokens] = x
        self.words, self.sums = aligned(self.capacity * columns), aligned(self.capacity * ROW_SUMS_BYTES)
        self.words[:], self.sums[:] = 0x5A, 0xFF  # what no kernel may use
        self.count = np.array([tokens], np.int64)
        places = address(self.words), address(self.sums), address(self.count)
        call(
            body.kernel("pack_tokens"),
            pack_tokens.Args(address(self.rows), 4 * columns, columns, *places, bits(scale)),
            threads=2,
        )

    def unpack(self, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes [tokens, columns], scales and sums [tokens] back from the packed layout."""
        tokens, columns = int(self.count[0]), self.rows.shape[1]
        codes, scales, totals = [], [], []
        for first in range(0, tokens, tile):
            here = min(tile, tokens - first)
            wide = 1 if tokens == 1 else min(tile, next(width for width in (2, 4, 8) if here <= width))
            words = self.words[first * columns :][: wide * columns].view(np.int8).reshape(columns // 4, wide, 4)
            sums = self.sums[first * ROW_SUMS_BYTES :][: wide * ROW_SUMS_BYTES].reshape(2, wide * 4)
            codes.append(words.transpose(1, 0, 2).reshape(wide, columns)[:here])
            scales.append(sums[0].view(np.float32)[:here])
            totals.append(-sums[1].view(np.int32)[:here])
        return np.concatenate(codes), np.concatenate(scales), np.concatenate(totals)


class Packed:
    """Activations [tokens, columns] quantized by the kernel of a body, with the memory that other kernels read."""

    def __init__(self, body: Body, x: np.ndarray):
        tokens, columns = x.shape
        self.capacity = round_up(tokens, 16)
        self.rows = np.zeros((self.capacity, columns), np.float32)
        self.rows[:tokens] = x
        self.words = aligned(self.capacity * columns)
        self.sums = aligned(self.capacity * columns // 32 * SUMS_BYTES)
        self.words[:], self.sums[:] = 0x5A, 0xFF  # what no kernel may use: the scales are not even numbers
        self.count = np.array([tokens], np.int64)
        if columns % 32 == 0:
            call(
                body.kernel("pack"),
                pack.Args(
                    address(self.rows),
                    4 * columns,
                    columns,
                    address(self.words),
                    address(self.sums),
                    address(self.count),
                ),
            )

    def unpack(self, tile: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes [tokens, columns] and scales [tokens, groups] back from the packed layout."""
        tokens, columns = int(self.count[0]), self.rows.shape[1]
        groups, codes, scales = columns // 32, [], []
        for first in range(0, tokens, tile):
            here = min(tile, tokens - first)
            wide = 1 if tokens == 1 else min(tile, next(width for width in (2, 4, 8) if here <= width))
            words = self.words[first * columns :][: wide * columns].view(np.int8).reshape(columns // 4, wide, 4)
            sums = self.sums[first * groups * SUMS_BYTES :][: wide * groups * SUMS_BYTES].view(np.float32)
            codes.append(words.transpose(1, 0, 2).reshape(wide, columns)[:here])
            scales.append(sums.reshape(groups, 5, wide)[:, 0].T[:here])
        return np.concatenate(codes), np.concatenate(scales)


def matmul(
    body: Body,
    name: str,
    panels: np.ndarray,
    rows: int,
    x: np.ndarray,
    bias: np.ndarray | None = None,
    add_to: np.ndarray | None = None,
    threads: int = 1,
    scale: float = 0.0,
) -> np.ndarray:
    """[tokens, rows] = x [tokens, columns] through the kernel `matmul:name`; `scale` as PackedTokens has it."""
    packed = PackedTokens(body, x, scale) if block_type(name).per_row else Packed(body, x)
    weights = aligned(panels.nbytes)
    weights[:] = panels.reshape(-1).view(np.uint8)
    out = np.zeros((packed.capacity, round_up(rows, 32)), np.float32)
    if add_to is not None:
        out[: len(x), :rows] = add_to
    padded = None
    if bias is not None:
        padded = np.zeros(round_up(rows, 32), np.float32)
        padded[:rows] = bias
    quantized = block_type(name).quantized
    source = (address(packed.words), address(packed.sums)) if quantized else (address(packed.rows), 4 * x.shape[1])
    call(
        body.kernel(f"matmul:{name}"),
        linear.Args(
            address(weights),
            rows,
            x.shape[1],
            *source,
            address(out),
            out.strides[0],
            address(packed.count),
            address(padded),
            int(add_to is not None),
            0,
            0,
        ),
        threads=threads,
    )
    return out[: len(x), :rows].copy()


def random_panels(rng: np.random.Generator, name: str, rows: int, columns: int) -> np.ndarray:
    """Panels of random codes and scales: every bit pattern of a code, scales as real weights have them."""
    from edgeq.blocks.reference import encode
    from edgeq.blocks.table import block_type

    bt = block_type(name)
    weights = (rng.standard_normal((rows, columns)) * 0.02).astype(np.float32)
    panels = np.array(encode(weights, name)).reshape(-(-rows // 16), -1)
    if not bt.quantized:
        return panels
    if bt.per_row:
        panels[: rows // 16, bt.header_bytes :] = rng.integers(0, 256, (rows // 16, columns * 16), dtype=np.uint8)
        return panels
    start = 0
    for first in range(0, columns, 256):
        group_bytes = min(8, (columns - first) // 32) * bt.group_bytes
        codes = panels[: rows // 16, start + bt.header_bytes :][:, :group_bytes]
        codes[:] = rng.integers(0, 256, codes.shape, dtype=np.uint8)
        start += bt.header_bytes + group_bytes
    return panels
