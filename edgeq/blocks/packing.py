"""Where the bits of codes lie in a group's packed lines of 64 bytes (`formats/blocks.md`, Codes).

Codes of b bits take b packed lines. Whole codes fill a byte from the bottom; what they leave at its top holds the codes
of further lines, in pieces. So most codes come out by a shift and a mask, and only the others are put together.

This module needs neither NumPy nor Numba.
"""

# A piece of a code line: the packed line it is in, its lowest bit there, and how many bits it has
Piece = tuple[int, int, int]
Pieces = tuple[Piece, ...]

# Bits of a code -> for each of the 8 code lines of a group its pieces, those of the highest bits first
CODE_LINES: dict[int, tuple[Pieces, ...]] = {
    8: tuple(((line, 0, 8),) for line in range(8)),
    4: tuple(((line // 2, line % 2 * 4, 4),) for line in range(8)),
    2: tuple(((line // 4, line % 4 * 2, 2),) for line in range(8)),
    1: tuple(((0, line, 1),) for line in range(8)),
    3: (
        ((0, 0, 3),),
        ((0, 3, 3),),
        ((1, 0, 3),),
        ((1, 3, 3),),
        ((2, 0, 3),),
        ((2, 3, 3),),
        ((0, 6, 2), (2, 6, 1)),
        ((1, 6, 2), (2, 7, 1)),
    ),
    5: (
        ((0, 0, 5),),
        ((1, 0, 5),),
        ((0, 5, 3), (1, 6, 2)),
        ((2, 0, 5),),
        ((3, 0, 5),),
        ((2, 5, 3), (3, 6, 2)),
        ((4, 0, 5),),
        ((4, 5, 3), (1, 5, 1), (3, 5, 1)),
    ),
    6: (
        ((0, 0, 6),),
        ((1, 0, 6),),
        ((2, 0, 6),),
        ((0, 6, 2), (1, 6, 2), (2, 6, 2)),
        ((3, 0, 6),),
        ((4, 0, 6),),
        ((5, 0, 6),),
        ((3, 6, 2), (4, 6, 2), (5, 6, 2)),
    ),
}


def places(bits: int) -> list[tuple[int, int, int, int, int]]:
    """Every piece as (code line, packed line, lowest bit in the code, lowest bit in the packed line, bits)."""
    found = []
    for line, pieces in enumerate(CODE_LINES[bits]):
        above = bits
        for packed, at, count in pieces:
            above -= count
            found.append((line, packed, above, at, count))
    return found
