"""Types that only GGUF has, against the gguf package's arithmetic, bit for bit."""

import numpy as np
import pytest

from edgeq.blocks.fields import decode_fields
from edgeq.blocks.gguf_decode import decode_blocks, mxfp4_fits, mxfp4_weights, widen
from edgeq.blocks.gguf_types import BY_NAME, GGUF_TYPES
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.reference import decode, from_plain, to_plain
from edgeq.blocks.table import BLOCK_TYPES, block_type

gguf = pytest.importorskip("gguf")

ROWS, COLS = 24, 512
WIDENED = [t.name for t in GGUF_TYPES.values() if t.held and t.exact and not t.native]
DECODED = [t.name for t in GGUF_TYPES.values() if t.held and not t.exact]
# Where the f16 scales of a block are
SCALES = {"IQ4_NL": [0], "Q3_K": [108], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": []}
SCALES |= {"Q2_K": [80, 82], "IQ4_XS": [0]}


def random_blocks(name: str, seed: int = 0) -> np.ndarray:
    """u8 [rows, row_bytes]: every bit pattern, scales any finite f16."""
    rng = np.random.default_rng(seed)
    kind = BY_NAME[name]
    blocks = rng.integers(0, 256, (ROWS * COLS // kind.columns, kind.block_bytes), np.uint8)
    for place in SCALES[name]:
        bits = rng.integers(0, 0x7C00, len(blocks)).astype("<u2") | rng.integers(0, 2, len(blocks)).astype("<u2") << 15
        blocks[:, place : place + 2] = bits.astype("<u2").view(np.uint8).reshape(-1, 2)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(128 - 24, 128 + 19, len(blocks))
        blocks[:5, 0] = (104, 143, 144, 145, 146)
        blocks[5, 0], blocks[5, 1:] = 0, np.array([0x80, 0x08] * 8)  # zeros of both signs, no exponent that f16 has
    return blocks.reshape(ROWS, -1)


def oracle(blocks: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def test_the_table_is_that_of_the_gguf_package():
    sizes = gguf.GGML_QUANT_SIZES
    for kind in GGUF_TYPES.values():
        assert sizes[gguf.GGMLQuantizationType(kind.id)] == (kind.columns, kind.block_bytes)
        assert gguf.GGMLQuantizationType(kind.id).name == kind.name
        assert not kind.held or kind.held in BLOCK_TYPES
    assert {bt.name: bt.gguf_id for bt in BLOCK_TYPES.values()} == {
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


@pytest.mark.parametrize("name", DECODED)
def test_decoded_types_have_the_packages_weights(name):
    blocks = random_blocks(name)
    assert same_bits(decode_blocks(blocks.reshape(-1), ROWS, COLS, name), oracle(blocks, name))


def test_mxfp4_past_the_range_of_f16_is_told_and_fits_bf16():
    blocks = random_blocks("MXFP4")
    assert mxfp4_fits(blocks)
    for exponent in (103, 147, 2, 250):
        blocks[0, :3] = (exponent, 0x17, 0x71)
        assert not mxfp4_fits(blocks)
        weights = mxfp4_weights(blocks, ROWS, COLS)
        assert same_bits(weights, oracle(blocks, "MXFP4"))
        assert same_bits(from_plain(to_plain(weights, "BF16"), "BF16"), weights)
