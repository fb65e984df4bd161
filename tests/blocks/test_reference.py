"""Decode against GGUF's numerics bit for bit; GGUF blocks and panels are two orders of the same bits."""

import gguf_oracle
import numpy as np
import pytest

from edgeq.blocks.panels import unpack_panels
from edgeq.blocks.reference import decode, encode, from_gguf, to_gguf
from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.errors import UnsupportedError

NAMES = list(BLOCK_TYPES)
GGUF = [bt.name for bt in BLOCK_TYPES.values() if bt.gguf_columns]
QUANTIZED = [bt.name for bt in BLOCK_TYPES.values() if bt.quantized]


def random_blocks(name: str, rows: int, cols: int, seed: int) -> np.ndarray:
    """GGUF blocks of random bits: every code and scale factor, and f16 scales that are huge, tiny, infinite or NaN."""
    return np.random.default_rng(seed).integers(0, 256, block_type(name).gguf_bytes(rows, cols), dtype=np.uint8)


def gguf_decode(blocks: np.ndarray, rows: int, cols: int, name: str) -> np.ndarray:
    return gguf_oracle.dequantize(blocks.reshape(rows, -1), name).reshape(rows, cols)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit, except that any NaN equals any NaN."""
    nan = np.isnan(a) & np.isnan(b)
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | nan))


@pytest.mark.parametrize("name", GGUF)
@pytest.mark.parametrize(("rows", "cols"), [(1, 256), (16, 512), (37, 768)])
def test_decode_has_the_bits_of_gguf(name, rows, cols):
    blocks = random_blocks(name, rows, cols, seed=rows)
    panels = from_gguf(blocks, rows, cols, name)
    assert panels.size == block_type(name).tensor_bytes(rows, cols)
    expected = gguf_decode(blocks, rows, cols, name)
    assert np.isfinite(expected).any()
    assert same_bits(decode(panels, rows, cols, name), expected)


@pytest.mark.parametrize("name", GGUF)
@pytest.mark.parametrize(("rows", "cols"), [(16, 256), (5, 1024)])
def test_gguf_to_panels_and_back_is_lossless(name, rows, cols):
    blocks = random_blocks(name, rows, cols, seed=cols)
    assert np.array_equal(to_gguf(from_gguf(blocks, rows, cols, name), rows, cols, name), blocks)


@pytest.mark.parametrize("name", [bt.name for bt in BLOCK_TYPES.values() if bt.gguf_columns == 32])
def test_gguf_rows_of_32_are_lossless(name):
    blocks = random_blocks(name, 3, 288, seed=1)
    panels = from_gguf(blocks, 3, 288, name)
    assert np.array_equal(to_gguf(panels, 3, 288, name), blocks)
    assert same_bits(decode(panels, 3, 288, name), gguf_decode(blocks, 3, 288, name))


@pytest.mark.parametrize("name", [bt.name for bt in BLOCK_TYPES.values() if bt.gguf_columns == 256])
def test_gguf_has_no_ragged_rows(name):
    panels = encode(np.ones((1, 288), np.float32), name)
    with pytest.raises(UnsupportedError, match="multiple of 256"):
        to_gguf(panels, 1, 288, name)
    with pytest.raises(UnsupportedError, match="multiple of 256"):
        from_gguf(np.zeros(1, np.uint8), 1, 288, name)


def test_gguf_has_no_own_types():
    assert [name for name in NAMES if name not in GGUF] == ["NF4", "IQ12_W", "IQ3_W", "IQ3S_W", "NVFP4_W", "I8_R"]
    with pytest.raises(UnsupportedError, match="GGUF has no type IQ3_W"):
        from_gguf(np.zeros(1, np.uint8), 1, 256, "IQ3_W")


def test_gguf_decodes_what_edgeq_encodes():
    weights = np.random.default_rng(3).standard_normal((18, 512), dtype=np.float32)
    for name in GGUF:
        panels = encode(weights, name)
        exported = gguf_decode(to_gguf(panels, 18, 512, name), 18, 512, name)
        assert same_bits(decode(panels, 18, 512, name), exported)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (17, 96), (16, 288), (33, 576)])
def test_rows_do_not_depend_on_their_neighbours(name, rows, cols):
    weights = np.random.default_rng(4).standard_normal((rows, cols), dtype=np.float32)
    whole = decode(encode(weights, name), rows, cols, name)
    last = decode(encode(weights[-1:], name), 1, cols, name)
    assert np.array_equal(whole[-1:], last)
    few = {"Q2_K": 0.4, "Q3_K": 0.2, "TQ2_0": 0.55, "Q2_0": 0.4, "Q1_0": 0.7}  # levels
    assert np.sqrt(np.mean((whole - weights) ** 2)) < few.get(name, 0.15)


@pytest.mark.parametrize("name", QUANTIZED)
def test_padding_is_zero_bytes(name):
    """Rows past the last and entries past a short super-block's groups are zero, so equal matrices are equal bytes."""
    bt = block_type(name)
    weights = np.random.default_rng(5).standard_normal((3, 96), dtype=np.float32)
    panels = encode(weights, name)
    padding = unpack_panels(panels, 16, 96, bt)
    for part in vars(padding).values():
        assert part is None or not part[3:].view(np.uint8).any()
    header = panels[: bt.header_bytes]
    if bt.scales == "f16":
        each = 256 // max(bt.scale_group // 32, 1)
        for start in range(0, bt.header_bytes, each):  # of scales, of mins
            assert not header[start + -(-96 // bt.scale_group) * 32 : start + each].any()
    if bt.scales == "i8":
        assert not header[32 + 6 * 16 :].any()


def test_plain_types_round_to_nearest_even():
    values = np.array([[1.0, 1 + 2**-8, 1 + 3 * 2**-8, -0.0, 65520.0, np.inf, np.nan, 3e38]], np.float32)
    bf16 = decode(encode(values, "BF16"), 1, 8, "BF16")[0]
    assert bf16[:6].tolist() == [1.0, 1.0, 1.015625, 0.0, 65536.0, np.inf]
    assert np.signbit(bf16[3]) and np.isnan(bf16[6])
    assert decode(encode(values, "F16"), 1, 8, "F16")[0][4] == np.inf
    assert np.array_equal(decode(encode(values, "F32"), 1, 8, "F32"), values, equal_nan=True)


def test_encode_refuses_what_the_type_cannot_hold():
    with pytest.raises(UnsupportedError, match="multiple of 32 weights, not 40"):
        encode(np.ones((1, 40), np.float32), "Q4_0")
    assert encode(np.ones((1, 40), np.float32), "F16").size == 16 * 40 * 2
