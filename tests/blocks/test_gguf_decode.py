"""Types that only GGUF has, against the gguf package's arithmetic, bit for bit."""

import gguf
import gguf_oracle
import numpy as np
import pytest

from edgeq.blocks.fields import decode_fields
from edgeq.blocks.gguf_decode import narrow, widen
from edgeq.blocks.gguf_grids import GRIDS, indices, values
from edgeq.blocks.gguf_types import BY_NAME, GGUF_TYPES
from edgeq.blocks.panels import pack_panels, unpack_panels
from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.errors import FormatError

ROWS, COLS = 24, 512
WIDENED = [t.name for t in GGUF_TYPES.values() if t.held and not t.native and t.name != "NVFP4"]
# Where the f16 scale of a block is
SCALES = {"TQ1_0": 52}  # else at the start


def random_blocks(name: str, seed: int = 0) -> np.ndarray:
    """u8 [rows, row_bytes]: every bit pattern, scales any finite f16."""
    rng = np.random.default_rng(seed)
    kind = BY_NAME[name]
    blocks = rng.integers(0, 256, (ROWS * COLS // kind.columns, kind.block_bytes), np.uint8)
    bits = rng.integers(0, 0x7C00, len(blocks)).astype("<u2") | rng.integers(0, 2, len(blocks)).astype("<u2") << 15
    if name == "IQ1_M":  # has its f16 in four nibbles
        for i in range(4):
            blocks[:, 49 + 2 * i] = blocks[:, 49 + 2 * i] & 15 | (bits >> 4 * i & 15) << 4
    else:
        place = SCALES.get(name, 0)
        blocks[:, place : place + 2] = bits.astype("<u2").view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, -1)


def oracle(blocks: np.ndarray, name: str) -> np.ndarray:
    return gguf_oracle.dequantize(blocks, name)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_the_table_is_that_of_the_gguf_package():
    for kind in GGUF_TYPES.values():
        assert gguf_oracle.sizes(kind.name) == (kind.columns, kind.block_bytes)
        assert gguf_oracle.type_of(kind.name) == kind.id
        assert not kind.held or kind.held in BLOCK_TYPES
    assert {bt.name: bt.gguf_id for bt in BLOCK_TYPES.values() if bt.gguf_id is not None} == {
        t.name: t.id for t in GGUF_TYPES.values() if t.native
    }


@pytest.mark.parametrize("name", WIDENED)
def test_widened_types_keep_every_bit_of_every_weight(name):
    blocks = random_blocks(name)
    bt = block_type(BY_NAME[name].held)
    fields = widen(blocks.reshape(-1), ROWS, COLS, name)
    assert same_bits(decode_fields(fields, bt), oracle(blocks, name))
    panels = pack_panels(fields, bt)
    assert panels.size == bt.tensor_bytes(ROWS, COLS)
    assert same_bits(decode(panels, ROWS, COLS, bt.name), oracle(blocks, name))
    back = narrow(unpack_panels(panels, ROWS, COLS, bt), name)
    assert name == "TQ1_0" or np.array_equal(back, blocks.reshape(-1))


def test_what_a_type_cannot_hold_is_told():
    fields = unpack_panels(encode(np.ones((16, 256), np.float32), "IQ3_W"), 16, 256, block_type("IQ3_W"))
    fields.codes[3, 7] ^= 9
    with pytest.raises(FormatError, match="IQ3_XXS cannot hold"):
        narrow(fields, "IQ3_XXS")


def test_the_grids_are_those_of_the_gguf_package():
    for name, grid in GRIDS.items():
        kind = getattr(gguf.quants, name)
        kind.init_grid()
        assert np.array_equal(values(name), kind.grid.reshape(grid.size, grid.columns))
        assert np.array_equal(indices(values(name), name), np.arange(grid.size))


def test_ternary_blocks_come_back_as_ggml_writes_them():
    """Of the 256 bytes that decode, ggml's quantizer writes 243."""
    weights = np.random.default_rng(1).standard_normal((ROWS, COLS)).astype(np.float32)
    blocks = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.TQ1_0)
    fields = widen(blocks.reshape(-1), ROWS, COLS, "TQ1_0")
    assert np.array_equal(narrow(fields, "TQ1_0"), blocks.reshape(-1))
