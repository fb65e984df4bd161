"""The compiled encoder gives the bytes of the NumPy reference, whatever the shape, the values and the threads."""

import numpy as np
import pytest

from edgeq.blocks.reference import encode
from edgeq.blocks.table import BLOCK_TYPES, PANEL_ROWS, block_type
from edgeq.kernels.encode_api import encode_panels

QUANTIZED = [bt.name for bt in BLOCK_TYPES.values() if bt.quantized]


def hard_rows(cols: int) -> np.ndarray:
    """One row of each kind that a search stumbles over."""
    rng = np.random.default_rng(7)
    normal = rng.standard_normal((24, cols)).astype(np.float32)
    normal[0] = 0
    normal[1] = 0.25
    normal[2] = -0.25
    normal[3] = 0
    normal[3, 5] = 1000  # one outlier
    normal[4] *= 1e-3
    normal[4, 7] = -50
    normal[5] *= 1e-6  # d is a denormal f16
    normal[6] *= 1e-9  # rounds to zero
    normal[7] *= 1e-40  # denormal f32
    normal[8] *= 65504 / np.abs(normal[8]).max()  # as large as f16 goes
    normal[9] = np.abs(normal[9])
    normal[10] = -np.abs(normal[10])
    normal[11] += 100  # far from zero
    normal[12] = np.sign(normal[12])  # two levels
    normal[13] = np.round(normal[13])
    normal[14, : cols // 2] = 0
    normal[15, ::2] = 0
    normal[16] = np.where(normal[16] > 1, normal[16], 0)
    normal[17] = np.linspace(-1, 1, cols)
    normal[18] = -0.0
    normal[19] = rng.standard_t(2, cols)
    normal[20] = 65504
    normal[21] = np.where(rng.random(cols) < 0.5, 1e-20, -1e-20)
    normal[22] = 6e-8  # the smallest f16
    return normal


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("cols", [32, 96, 256, 288, 576])
def test_same_bytes_as_the_reference(name, cols):
    weights = hard_rows(cols)
    for rows in (1, 16, 24):
        assert np.array_equal(encode_panels(weights[:rows], name), encode(weights[:rows], name))


@pytest.mark.parametrize("name", QUANTIZED)
def test_same_bytes_on_normal_rows(name):
    weights = np.random.default_rng(8).standard_normal((64, 1024)).astype(np.float32)
    assert np.array_equal(encode_panels(weights, name), encode(weights, name))


def hard_importances(cols: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    spread = np.exp(2 * rng.standard_normal(cols)).astype(np.float32)
    outlier, gaps = spread.copy(), spread.copy()
    outlier[3] = 1e6 * spread.mean()
    gaps[cols // 2 :] = 0
    return {"outlier": outlier, "gaps": gaps, "large": spread * np.float32(1e34), "small": spread * np.float32(1e-34)}


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("cols", [32, 96, 576])
def test_importances_give_the_bytes_of_the_reference(name, cols):
    weights = hard_rows(cols)
    for importance in hard_importances(cols).values():
        for rows in (3, 24):
            expected = encode(weights[:rows], name, importance)
            assert np.array_equal(encode_panels(weights[:rows], name, 1, importance), expected)


@pytest.mark.parametrize("name", ["Q2_K", "Q6_K", "Q5_1", "NF4"])
def test_importances_that_are_equal_or_all_zero_are_as_none(name):
    weights = np.random.default_rng(12).standard_normal((20, 288)).astype(np.float32)
    for importance in (np.zeros(288, np.float32), np.full(288, 7, np.float32)):
        assert np.array_equal(encode_panels(weights, name, 2, importance), encode_panels(weights, name))


@pytest.mark.parametrize("name", ["Q4_K", "Q8_0"])
def test_threads_and_runs_of_rows_change_nothing(name):
    weights = np.random.default_rng(9).standard_normal((75, 160)).astype(np.float32)
    once = encode_panels(weights, name)
    for threads in (2, 3, 8):
        assert np.array_equal(encode_panels(weights, name, threads), once)
    runs = [encode_panels(weights[start : start + 2 * PANEL_ROWS], name) for start in range(0, 75, 2 * PANEL_ROWS)]
    assert np.array_equal(np.concatenate(runs), once)


def test_plain_types_and_views():
    weights = np.random.default_rng(10).standard_normal((40, 96)).astype(np.float32)
    view = weights[::2, 32:]
    for name in BLOCK_TYPES:
        panels = encode_panels(view, name)
        assert panels.size == block_type(name).tensor_bytes(20, 64)
        assert np.array_equal(panels, encode(np.ascontiguousarray(view), name))
