"""Bits of 16 rows from one layout to another, as a table says: what lies between GGUF's blocks and panels.

A unit is one, two or four bytes of each of the 16 rows: in a panel rows lie next to one another, in blocks a row's
length apart. The units of a super-block are read first; each unit that is written is made of the bits of some of
these, rotated and masked.

A table (int64) begins with the numbers of units that are read and that are written. Of each one read follow its offset
in the super-block and its width in bytes, of each one written offset, width, number of terms and the bits to be
flipped at the end, then its terms: 64 times the number of a unit read, bits to rotate it by to the left, mask.
"""

import numpy as np
from numpy.typing import NDArray

from edgeq.kernels.argument_blocks import Rearrange
from edgeq.simd.argument_words import words_of
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_i64, stack
from edgeq.simd.words import (
    flip_bits,
    gather_words,
    load_bytes,
    load_halfwords,
    load_words,
    or_rotated,
    scatter_words,
    splat_word,
    store_bytes,
    store_halfwords,
    store_words,
)

MEMORY = 128 * 64  # bytes of the units of a super-block


def make(variant: str, isa: Isa):
    """`to-panels` reads rows that lie apart, `to-blocks` writes such rows. Threads
    share the panels.
    """
    arguments, from_blocks = words_of(Rearrange), variant == "to-panels"

    def kernel(args, thread, n_threads):
        a = arguments(args)
        table = a.table
        units, made = load_i64(table), load_i64(table + 8)
        kept = stack(MEMORY)
        for panel in range(a.panels * thread // n_threads, a.panels * (thread + 1) // n_threads):
            for block in range(a.blocks):
                at = a.source + panel * a.source_panel + block * a.source_block
                for i in range(units):
                    offset, width = load_i64(table + 16 + 16 * i), load_i64(table + 24 + 16 * i)
                    if from_blocks:
                        store_words(kept + 64 * i, gather_words(at + offset, a.source_row))
                    elif width == 4:
                        store_words(kept + 64 * i, load_words(at + offset))
                    elif width == 2:
                        store_words(kept + 64 * i, load_halfwords(at + offset))
                    else:
                        store_words(kept + 64 * i, load_bytes(at + offset))
                at = a.target + panel * a.target_panel + block * a.target_block
                entry = table + 16 + 16 * units
                for _ in range(made):
                    offset, width = load_i64(entry), load_i64(entry + 8)
                    terms, flip = load_i64(entry + 16), load_i64(entry + 24)
                    entry += 32
                    value = splat_word(0)
                    for _ in range(terms):
                        unit = load_words(kept + load_i64(entry))
                        value = or_rotated(value, unit, load_i64(entry + 8), load_i64(entry + 16))
                        entry += 24
                    value = flip_bits(value, flip)
                    if not from_blocks:
                        scatter_words(at + offset, a.target_row, value)
                    elif width == 4:
                        store_words(at + offset, value)
                    elif width == 2:
                        store_halfwords(at + offset, value)
                    else:
                        store_bytes(at + offset, value)

    return kernel


def reference(table: NDArray[np.int64], units: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The NumPy twin: the units read u32 [units, 16] -> those that are written u32 [made, 16]."""
    numbers = iter(table[2 + 2 * int(table[0]) :].tolist())
    made = np.zeros((int(table[1]), units.shape[1]), np.uint32)
    for row in made:
        _, _, terms, flip = (next(numbers) for _ in range(4))
        for _ in range(terms):
            at, left, mask = (next(numbers) for _ in range(3))
            unit = units[at // 64].astype(np.uint64)
            row |= ((unit << np.uint64(left) | unit >> np.uint64(32 - left)) & np.uint64(mask)).astype(np.uint32)
        row ^= np.uint32(flip)
    return made
