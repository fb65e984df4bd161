"""The matrix kernels of every body against their NumPy twin."""

import numpy as np
import pytest
from kernel_calls import BODIES, matmul, random_panels

from edgeq.blocks.reference import decode
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.ops import matmul as family

QUANTIZED = [bt.name for bt in BLOCK_TYPES.values() if bt.quantized]
FLOATS = ["F32", "F16", "BF16"]
# rows, columns: whole panels, ragged panels, and rows of every remainder of groups
SHAPES = [(16, 32), (80, 256), (37, 288), (5, 96), (64, 576)]

bodies = pytest.mark.parametrize("body", BODIES, ids=repr)


def close(result, expected, name=""):
    """Up to f32 rounding; NF4's values have 16 bits in kernels."""
    scale = np.abs(expected).max() + 1e-30
    np.testing.assert_allclose(result / scale, expected / scale, rtol=0, atol=3e-5 if name == "NF4" else 3e-6)


@bodies
@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_quantized_matches_twin(body, name, shape):
    rng = np.random.default_rng(hash(shape) % 2**32)
    panels = random_panels(rng, name, *shape)
    weights = decode(panels.reshape(-1), *shape, name)
    for tokens in (1, 2, 9):
        x = rng.standard_normal((tokens, shape[1])).astype(np.float32)
        close(matmul(body, name, panels, shape[0], x), family.reference(weights, name, x), name)


@pytest.mark.parametrize("body", [body for body in BODIES if body.native], ids=repr)
@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("shape", [(16, 32), (37, 172), (5, 7)], ids=str)
def test_float_matches_twin(body, name, shape):
    rng = np.random.default_rng(3)
    panels = random_panels(rng, name, *shape)
    weights = decode(panels.reshape(-1), *shape, name)
    for tokens in (1, 5):
        x = rng.standard_normal((tokens, shape[1])).astype(np.float32)
        close(matmul(body, name, panels, shape[0], x), family.reference(weights, name, x), name)


@bodies
@pytest.mark.parametrize("name", QUANTIZED)
def test_same_bits_as_the_portable_body(body, name):
    rng = np.random.default_rng(4)
    panels = random_panels(rng, name, 48, 544)
    x = rng.standard_normal((11, 544)).astype(np.float32)
    np.testing.assert_array_equal(
        matmul(body, name, panels, 48, x).view(np.int32), matmul(BODIES[-1], name, panels, 48, x).view(np.int32)
    )


@bodies
@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("code", [0, 255], ids=["least", "largest"])
def test_extreme_codes_do_not_saturate(body, name, code):
    """All codes alike, far from their zero point, against activations of +-127: the largest sums that can occur."""
    rng = np.random.default_rng(5)
    panels = random_panels(rng, name, 16, 512)
    bt = BLOCK_TYPES[name]
    starts = (bt.header_bytes,) if bt.per_row else (bt.header_bytes, bt.super_block_offset(1) + bt.header_bytes)
    for start in starts:
        panels[:, start : start + 512 // len(starts) // 32 * bt.group_bytes] = code
    weights = decode(panels.reshape(-1), 16, 512, name)
    signs = np.where(rng.random((3, 512)) < 0.5, -1.0, 1.0)
    for x in (np.ones((3, 512)), -np.ones((3, 512)), signs):
        x = (x * 2.5).astype(np.float32)
        close(matmul(body, name, panels, 16, x), family.reference(weights, name, x), name)


@pytest.mark.parametrize("name", QUANTIZED + FLOATS)
def test_one_token_at_a_time_gives_the_same_bits(name):
    rng = np.random.default_rng(6)
    body = next(body for body in BODIES if body.native)
    rows = 152  # panels for two turns of four streams, and two that are left
    panels = random_panels(rng, name, rows, 320)
    x = rng.standard_normal((200, 320)).astype(np.float32)
    whole = matmul(body, name, panels, rows, x)
    for threads in (1, 3):
        single = [matmul(body, name, panels, rows, x[i : i + 1], threads=threads) for i in range(0, 200, 17)]
        np.testing.assert_array_equal(whole[::17].view(np.int32), np.concatenate(single).view(np.int32))
    np.testing.assert_array_equal(whole, matmul(body, name, panels, rows, x, threads=3))


@bodies
@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q8_0", "Q2_K", "NF4", "I8_R"])
def test_every_width_of_tiles_gives_the_bits_of_single_tokens(body, name):
    """A few tokens, tiles that are full and the narrow ones of what is left: panels for four streams and some beyond,
    one of them ragged, and a super-block that is not whole."""
    rng = np.random.default_rng(11)
    rows = 90
    panels = random_panels(rng, name, rows, 352)
    x = rng.standard_normal((131, 352)).astype(np.float32)
    single = np.concatenate([matmul(body, name, panels, rows, x[i : i + 1]) for i in range(19)])
    for tokens in range(2, 20):
        several = matmul(body, name, panels, rows, x[:tokens])
        np.testing.assert_array_equal(several.view(np.int32), single[:tokens].view(np.int32), f"{tokens} tokens")
    for tokens in (129, 130, 131):  # of which the last are left in a second chunk
        several = matmul(body, name, panels, rows, x[:tokens])
        np.testing.assert_array_equal(several[:19].view(np.int32), single.view(np.int32))
        last = matmul(body, name, panels, rows, x[tokens - 1 : tokens])
        np.testing.assert_array_equal(several[-1:].view(np.int32), last.view(np.int32))


@pytest.mark.parametrize("name", [*QUANTIZED, "F16"])
def test_bias_and_residual(name):
    rng = np.random.default_rng(7)
    body = next(body for body in BODIES if body.native)
    panels = random_panels(rng, name, 37, 96)
    weights = decode(panels.reshape(-1), 37, 96, name)
    bias = rng.standard_normal(37).astype(np.float32)
    for tokens in (1, 6):
        x = rng.standard_normal((tokens, 96)).astype(np.float32)
        before = rng.standard_normal((tokens, 37)).astype(np.float32)
        close(matmul(body, name, panels, 37, x, bias, before), family.reference(weights, name, x, bias, before), name)


@bodies
@pytest.mark.parametrize("name", ["Q4_K", "Q8_0", "Q5_1", "Q2_K", "IQ4_XS", "TQ2_0"])
def test_nan_scales_reach_only_their_rows(body, name):
    rng = np.random.default_rng(8)
    panels = random_panels(rng, name, 32, 256)
    panels[0, 6:8] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)  # the scale of row 3
    for tokens in (1, 5):
        x = rng.standard_normal((tokens, 256)).astype(np.float32)
        result = matmul(body, name, panels, 32, x)
        assert np.isnan(result[:, 3]).all()
        assert np.isfinite(np.delete(result, 3, axis=1)).all()


@bodies
def test_nan_activations_reach_the_outputs(body):
    rng = np.random.default_rng(9)
    panels = random_panels(rng, "Q4_K", 16, 64)
    x = rng.standard_normal((3, 64)).astype(np.float32)
    x[1, 40] = np.nan
    result = matmul(body, "Q4_K", panels, 16, x)
    assert np.isnan(result[1]).all()
    assert np.isfinite(result[[0, 2]]).all()
