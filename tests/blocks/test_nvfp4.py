"""NVFP4 as NVFP4_W, against the gguf package's arithmetic: exact where scales are near enough, else within a bound."""

import gguf_oracle
import numpy as np
import pytest

from edgeq.blocks import nvfp4
from edgeq.blocks.fields import decode_fields
from edgeq.blocks.gguf_decode import narrow, nvfp4_scales, widen
from edgeq.blocks.table import FP4_VALUES, block_type
from edgeq.errors import FormatError

ROWS, COLS = 24, 576  # a short super-block
HELD = block_type("NVFP4_W")
ONE = np.ones(1, np.float32)


def random_blocks(low: int, high: int) -> np.ndarray:
    """u8 [rows, row_bytes]: every pattern of codes, scales between two bytes."""
    rng = np.random.default_rng(low)
    blocks = rng.integers(0, 256, (ROWS * COLS // 64, 36), np.uint8)
    blocks[:, :4] = rng.integers(low, high, (len(blocks), 4))
    return blocks.reshape(ROWS, -1)


# Subnormal scales; four powers of two; the largest
@pytest.mark.parametrize(("low", "high"), [(0, 8), (1, 32), (0x38, 0x58), (0x60, 0x7F)])
def test_near_scales_are_exact_and_come_back(low: int, high: int) -> None:
    blocks = random_blocks(low, high)
    fields = widen(blocks.reshape(-1), ROWS, COLS, "NVFP4")
    expected = gguf_oracle.dequantize(blocks, "NVFP4")
    assert np.array_equal(decode_fields(fields, HELD).view(np.uint32), expected.view(np.uint32))
    assert np.array_equal(narrow(fields, "NVFP4"), blocks.reshape(-1))
    scales = nvfp4_scales(blocks.reshape(-1, 36)).reshape(ROWS, -1)
    assert nvfp4.rounded(scales, ONE) == 0 and nvfp4.squares(scales, ONE)[0] == 0


def test_far_scales_are_rounded_by_little() -> None:
    blocks = random_blocks(0, 0x7F)
    scales = nvfp4_scales(blocks.reshape(-1, 36)).reshape(ROWS, -1)
    assert 0 < nvfp4.rounded(scales, ONE) <= 1 / 128
    wrong, whole = nvfp4.squares(scales, ONE)
    found = decode_fields(widen(blocks.reshape(-1), ROWS, COLS, "NVFP4"), HELD)
    expected = gguf_oracle.dequantize(blocks, "NVFP4")
    assert not np.array_equal(found, expected)
    error = np.sqrt(np.square(found - expected, dtype="f8").sum() / np.square(expected, dtype="f8").sum())
    assert abs(np.sqrt(wrong / whole) - error) <= 0.2 * error
    for start in range(0, COLS, 256):
        part = slice(start, start + 256)
        largest = scales[:, start // 16 : (start + 256) // 16].max(axis=1, keepdims=True) * max(FP4_VALUES)
        assert (np.abs(found - expected)[:, part] <= largest / 128).all()


def test_a_factor_rounds_d_alone() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (ROWS, COLS), np.uint8)
    scales = np.random.default_rng(1).integers(8, 16, (ROWS, COLS // 16)).astype(np.float32)
    factor = np.float32([1e-4 / 3])
    found = decode_fields(nvfp4.fields_of(codes, scales, factor), HELD)
    expected = np.take(np.float32(FP4_VALUES), codes) * np.repeat(scales * factor, 16, axis=1)
    error = nvfp4.rounded(scales, factor)
    assert 0 < error <= 2**-11
    np.testing.assert_allclose(found, expected, rtol=error * 1.001)
    assert nvfp4.rounded(scales, np.float32([1e4])) == np.inf


def test_what_nvfp4_cannot_hold_is_told() -> None:
    fields = widen(random_blocks(0x38, 0x58).reshape(-1), ROWS, COLS, "NVFP4")
    fields.scales[3, 5] = 113
    with pytest.raises(FormatError, match="NVFP4 cannot hold"):
        narrow(fields, "NVFP4")
