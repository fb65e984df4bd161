"""The fast re-arrangement of blocks against the clear one."""

import numpy as np
import pytest

from edgeq.blocks.gguf_panels import blocks_to_panels, panels_to_blocks
from edgeq.blocks.reference import from_gguf, to_gguf
from edgeq.blocks.table import BLOCK_TYPES, block_type

# GGUF's k-quants have rows of whole super-blocks only
POSSIBLE = [
    (bt.name, cols)
    for bt in BLOCK_TYPES.values()
    for cols in (32, 224, 256, 512, 800)
    if bt.quantized and bt.gguf_columns and cols % bt.gguf_columns == 0
]


@pytest.mark.parametrize(("name", "cols"), POSSIBLE)
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_any_bytes_there_and_back(name: str, rows: int, cols: int):
    bt = block_type(name)
    blocks = np.random.default_rng(rows).integers(0, 256, bt.gguf_bytes(rows, cols), np.uint8)
    panels = blocks_to_panels(blocks, rows, cols, bt)
    assert np.array_equal(panels, from_gguf(blocks, rows, cols, name))
    back = panels_to_blocks(panels, rows, cols, bt)
    assert np.array_equal(back, to_gguf(panels, rows, cols, name)) and np.array_equal(back, blocks)
