"""Call kernels as the runtime does, and every instruction set body on any machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from llvmlite import ir

from edgeq.blocks.table import block_type
from edgeq.kernels import library
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.runtime.memory import aligned, round_up
from edgeq.simd import avx512, avx512vnni, emit, isa, portable


def address(array: np.ndarray | None) -> int:
    return 0 if array is None else int(array.ctypes.data)


def call(kernel: library.Kernel, *args: int, threads: int = 1) -> None:
    """Run a kernel for every thread of a team, one after the other."""
    block = np.array(args, dtype=np.int64)
    for thread in range(threads):
        kernel(block.ctypes.data, thread, threads)


def _saturate(b, wide, low):
    return b.trunc(
        emit.call(
            b,
            "llvm.smax.v32i32",
            wide.type,
            [
                emit.call(b, "llvm.smin.v32i32", wide.type, [wide, emit.splat_constant(wide.type, 32767)]),
                emit.splat_constant(wide.type, -32768),
            ],
        ),
        low,
    )


def _maddubs_512(b, codes, activations):
    """`vpmaddubsw`, saturation included, as Intel's manual defines it."""
    wide = ir.VectorType(ir.IntType(32), 64)
    products = b.mul(b.zext(codes, wide), b.sext(activations, wide))
    even, odd = (emit.shuffle(b, products, products, range(i, 64, 2)) for i in range(2))
    return _saturate(b, b.add(even, odd), ir.VectorType(ir.IntType(16), 32))


def _maddwd_512(b, x, y):
    """`vpmaddwd`."""
    wide = ir.VectorType(ir.IntType(32), 32)
    products = b.mul(b.sext(x, wide), b.sext(y, wide))
    even, odd = (emit.shuffle(b, products, products, range(i, 32, 2)) for i in range(2))
    return b.add(even, odd)


@contextmanager
def _defined_instructions() -> Iterator[None]:
    """The AVX-512 bodies with their instructions replaced by what these are defined to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avx512vnni, "_vpdpbusd", portable.dot_bytes)
        patch.setattr(avx512._body, "maddubs", _maddubs_512)
        patch.setattr(avx512._body, "maddwd", _maddwd_512)
        patch.setattr(emit, "pin", lambda b, values: values)  # its registers are 512 bits wide
        yield


def _emulated(row: isa.Isa) -> Callable[[str], library.Kernel]:
    kernels: dict[str, library.Kernel] = {}

    def kernel(name: str) -> library.Kernel:
        if name not in kernels:
            from edgeq.kernels.compile import compile_kernel

            symbol = f"emulated_{name}_{row.name}".replace(":", "_")
            with _defined_instructions():
                code = compile_kernel(*name.partition(":")[::2], row, symbol)
            kernels[name] = library.Kernel(name, library._engine().load(code, symbol))
        return kernels[name]

    return kernel


class Body:
    """An instruction set body: `kernel(name)` for tests, really run or with its instructions defined in plain IR."""

    def __init__(self, row: isa.Isa):
        self.isa = row
        self.native = row in isa.available()
        self.kernel = (lambda name: library.kernel(name, row)) if self.native else _emulated(row)

    def __repr__(self) -> str:
        return self.isa.name if self.native else f"{self.isa.name}-emulated"


# Those that run here, and those whose instructions are defined above.
BODIES = [Body(row) for row in isa.TABLE if row in isa.available() or row.name.startswith("avx512")]


class Packed:
    """Activations [tokens, columns] quantized by the kernel of a body, with the memory that other kernels read."""

    def __init__(self, body: Body, x: np.ndarray):
        tokens, columns = x.shape
        self.capacity = round_up(tokens, 16)
        self.rows = np.zeros((self.capacity, columns), np.float32)
        self.rows[:tokens] = x
        self.words = aligned(self.capacity * columns)
        self.sums = aligned(self.capacity * columns // 32 * SUMS_BYTES)
        self.count = np.array([tokens], np.int64)
        if columns % 32 == 0:
            call(
                body.kernel("quantize"),
                address(self.rows),
                4 * columns,
                columns,
                address(self.words),
                address(self.sums),
                address(self.count),
            )

    def unpack(self, tile: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes [tokens, columns] and scales [tokens, groups] back from the packed layout."""
        tokens, columns = int(self.count[0]), self.rows.shape[1]
        tile = 1 if tokens == 1 else tile
        tiles, groups = -(-tokens // tile), columns // 32
        words = self.words[: tiles * tile * columns].view(np.int8).reshape(tiles, columns // 4, tile, 4)
        codes = words.transpose(0, 2, 1, 3).reshape(tiles * tile, columns)[:tokens]
        sums = self.sums[: tiles * tile * groups * SUMS_BYTES].view(np.float32).reshape(tiles, groups, 5, tile)
        return codes, sums[:, :, 0].transpose(0, 2, 1).reshape(tiles * tile, groups)[:tokens]


def matmul(
    body: Body,
    name: str,
    panels: np.ndarray,
    rows: int,
    x: np.ndarray,
    bias: np.ndarray | None = None,
    add_to: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """[tokens, rows] = x [tokens, columns] through the kernel `matmul:name`."""
    packed = Packed(body, x)
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
        address(weights),
        rows,
        x.shape[1],
        *source,
        address(out),
        out.strides[0],
        address(packed.count),
        address(padded),
        int(add_to is not None),
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
    start = 0
    for first in range(0, columns, 256):
        group_bytes = min(8, (columns - first) // 32) * bt.group_bytes
        codes = panels[: rows // 16, start + bt.header_bytes :][:, :group_bytes]
        codes[:] = rng.integers(0, 256, codes.shape, dtype=np.uint8)
        start += bt.header_bytes + group_bytes
    return panels
