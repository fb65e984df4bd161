"""What this machine can do at most: bytes read per second, and multiply-adds of the body's byte dot products.

Threads take turns of each other's shares, as they do in what is measured against this.
"""

import numpy as np

from edgeq.kernels.argument_blocks import Dot, Read
from edgeq.kernels.layout import PROBE_LINES
from edgeq.kernels.turns import NOBODY, crew_of, next_owner, take
from edgeq.simd.argument_words import words_of
from edgeq.simd.body import Codes
from edgeq.simd.isa import Isa
from edgeq.simd.memory import hide
from edgeq.simd.tiles import operations
from edgeq.simd.vector import device, load_u8x64, or_shifted_u8x64, store_u8x64

READ_TURN, DOT_TURN = 64, 1000  # lines of 256 bytes in each of four places; repetitions


_read_arguments = words_of(Read)


@device
def _fold(total, address):
    return or_shifted_u8x64(total, load_u8x64(address), 0)


def _read(args, thread, n_threads):
    """Four places at once: memory gives more than to a single stream."""
    address, nbytes, out, counters, barriers = _read_arguments(args)
    lines, crew = nbytes // 256, crew_of(counters, barriers, thread, n_threads)
    a = load_u8x64(address)
    b, c, d = a, a, a
    whose, i = thread, -1
    while whose != NOBODY:
        first, last = lines * whose // n_threads, lines * (whose + 1) // n_threads
        quarter = (last - first) // 4
        i = take(crew, whose, i, quarter // READ_TURN + 1)
        if i == quarter // READ_TURN + 1:
            whose, i = next_owner(crew, whose), -1
            continue
        for line in range(first + i * READ_TURN, first + min(quarter, (i + 1) * READ_TURN)):
            for stream in range(4):
                at = address + (line + stream * quarter) * 256
                a, b, c, d = _fold(a, at), _fold(b, at + 64), _fold(c, at + 128), _fold(d, at + 192)
        for line in range(first + 4 * quarter, last if i == 0 else 0):
            at = address + line * 256
            a, b, c, d = _fold(a, at), _fold(b, at + 64), _fold(c, at + 128), _fold(d, at + 192)
    store_u8x64(out + 64 * thread, or_shifted_u8x64(or_shifted_u8x64(a, b, 0), or_shifted_u8x64(c, d, 0), 0))


def make(variant: str, isa: Isa):
    """`read`, or `dot-4` to `dot-8`: dots of a matmul's tile with codes of so many bits, all of it in L1."""
    if variant == "read":
        return _read
    bits = int(variant.removeprefix("dot-"))
    # centred, as tiles have them, 6-bit codes are no larger than those of 5 bits: as many products fit in int16
    ops = operations(isa, isa.tile, Codes(min(bits, 5) if bits < 8 else bits))
    dot_tile, add_scaled, tile_zero = ops.dot_tile(PROBE_LINES), ops.tile_add_scaled, ops.tile_zero
    tile_store, out_bytes, arguments = ops.tile_store, isa.tile * 64, words_of(Dot)

    def kernel(args, thread, n_threads):
        lines, words, sums, repetitions, out, counters, barriers = arguments(args)
        crew = crew_of(counters, barriers, thread, n_threads)
        total = tile_zero()
        whose, i = thread, -1
        while whose != NOBODY:
            i = take(crew, whose, i, repetitions // DOT_TURN)
            if i == repetitions // DOT_TURN:
                whose, i = next_owner(crew, whose), -1
                continue
            for _ in range(DOT_TURN):
                # hidden, else LLVM computes the dots of a body that pins nothing once, for all repetitions
                total = add_scaled(total, dot_tile(hide(lines), words, sums), sums)
        tile_store(out + thread * out_bytes, 64, total)

    return kernel


def reference(data: np.ndarray) -> np.uint8:
    """The NumPy twin of `read`: all bytes, or-ed."""
    return np.bitwise_or.reduce(data)
