"""What this machine can do at most: bytes read per second, and multiply-adds of the body's byte dot products."""

import numpy as np

from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64
from edgeq.simd.tiles import Codes, operations
from edgeq.simd.vector import device, load_u8x64, or_shifted_u8x64, splat_f32, store_u8x64


@device
def _fold(total, address):
    return or_shifted_u8x64(total, load_u8x64(address), 0)


def _read(args, thread, n_threads):
    """Argument block: address, bytes (a multiple of 256 per thread), out (64 bytes per thread).

    Four places at once: memory gives more than to a single stream.
    """
    address, nbytes, out = load_i64(args), load_i64(args + 8), load_i64(args + 16)
    lines = nbytes // 256
    first, last = lines * thread // n_threads, lines * (thread + 1) // n_threads
    quarter = (last - first) // 4
    a = load_u8x64(address)
    b, c, d = a, a, a
    for line in range(first, first + quarter):
        for stream in range(4):
            at = address + (line + stream * quarter) * 256
            a, b, c, d = _fold(a, at), _fold(b, at + 64), _fold(c, at + 128), _fold(d, at + 192)
    for line in range(first + 4 * quarter, last):
        at = address + line * 256
        a, b, c, d = _fold(a, at), _fold(b, at + 64), _fold(c, at + 128), _fold(d, at + 192)
    store_u8x64(out + 64 * thread, or_shifted_u8x64(or_shifted_u8x64(a, b, 0), or_shifted_u8x64(c, d, 0), 0))


def make(variant: str, isa: Isa):
    """`read`, or `dot-4`, `dot-8`: dots of a tile of tokens with codes of 4 or 8 bits, all of it in L1.

    `dot` argument block: code lines (512 bytes), words, sums, repetitions, out (tile x 64 bytes per thread).
    """
    if variant == "read":
        return _read
    ops = operations(isa, isa.tile, Codes(int(variant.removeprefix("dot-"))))
    dot_tile, tile_fma, tile_zero = ops.dot_tile, ops.tile_fma, ops.tile_zero
    tile_store, tile = ops.tile_store, isa.tile

    def kernel(args, thread, n_threads):
        lines, words, sums, repetitions, out = (
            load_i64(args),
            load_i64(args + 8),
            load_i64(args + 16),
            load_i64(args + 24),
            load_i64(args + 32),
        )
        total, one = tile_zero(), splat_f32(np.float32(1.0))
        for _ in range(repetitions):
            total = tile_fma(dot_tile(lines, words, sums), one, total)
        tile_store(out + thread * tile * 64, 64, total)

    return kernel


def reference(data: np.ndarray) -> np.uint8:
    """The NumPy twin of `read`: all bytes, or-ed."""
    return np.bitwise_or.reduce(data)
