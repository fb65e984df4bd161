"""Write edgeq/blocks/gguf_grids.bin: the codebooks of GGUF's IQ1, IQ2 and IQ3 types, as the gguf package has them.

    python tools/make_grids.py

One after another in the order of `edgeq.blocks.gguf_grids.GRIDS`; each entry is a u16 with the numbers of its 8 levels
in 2 bits each, or of its 4 levels in 3 bits each, the first lowest.
"""

import gguf
import numpy as np

from edgeq.blocks.gguf_grids import FILE, GRIDS


def packed(name: str) -> np.ndarray:
    """u16 [entries] of a grid."""
    kind = getattr(gguf.quants, name)
    kind.init_grid()
    entries = kind.grid.reshape(kind.grid_shape).astype(int)
    levels = GRIDS[name].levels
    numbers = np.array([[levels.index(value) for value in entry] for entry in entries.tolist()])
    return (numbers << GRIDS[name].bits * np.arange(numbers.shape[1])).sum(axis=1).astype("<u2")


def main() -> None:
    FILE.write_bytes(b"".join(packed(name).tobytes() for name in GRIDS))


if __name__ == "__main__":
    main()
