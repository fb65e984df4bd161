"""Matrices whose rows have one scale, and activations with one per token: exactly what the definition says, on every
body."""

import numpy as np
import pytest
from kernel_calls import BODIES, PackedTokens, address, call, matmul, random_panels

from edgeq.blocks.activations import quantized_rows
from edgeq.blocks.fields import Fields
from edgeq.blocks.panels import pack_panels, unpack_panels
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.ops import embedding

I8_R = block_type("I8_R")
NATIVE = next(body for body in BODIES if body.native)

bodies = pytest.mark.parametrize("body", BODIES, ids=repr)


def exactly(panels: np.ndarray, rows: int, x: np.ndarray, scale: float = 0.0) -> np.ndarray:
    """f32(dot) * scale of the row * scale of the token, dots in int64."""
    fields = unpack_panels(panels.reshape(-1), rows, x.shape[1], I8_R)
    codes, scales = quantized_rows(x, scale)
    dots = codes.astype(np.int64) @ (fields.codes.astype(np.int64) - 128).T
    assert np.abs(dots).max() < 2**31
    with np.errstate(invalid="ignore"):
        result: np.ndarray = dots.astype(np.float32) * fields.d[:, 0] * scales[:, None]
    return result


@bodies
@pytest.mark.parametrize("shape", [(16, 32), (37, 288), (90, 1120)], ids=str)
def test_results_are_those_of_the_definition_bit_for_bit(body, shape):
    rng = np.random.default_rng(1)
    panels = random_panels(rng, "I8_R", *shape)
    x = (rng.standard_normal((17, shape[1])) * np.exp(rng.standard_normal((17, 1)))).astype(np.float32)
    expected = exactly(panels, shape[0], x)
    for tokens in (1, 2, 3, 5, 8, 9, 13, 17):
        np.testing.assert_array_equal(matmul(body, "I8_R", panels, shape[0], x[:tokens]), expected[:tokens])
    np.testing.assert_array_equal(matmul(body, "I8_R", panels, shape[0], x, threads=3), expected)
    given = exactly(panels, shape[0], x, 0.01)
    np.testing.assert_array_equal(matmul(body, "I8_R", panels, shape[0], x, scale=0.01), given)
    assert not np.array_equal(given, expected)


@bodies
@pytest.mark.parametrize("code", [0, 1, 255])
def test_the_longest_rows_do_not_overflow(body, code):
    """All codes at an end of their range, all activations at one of theirs, in as many columns as there may be."""
    columns = 131072
    fields = Fields(np.full((16, columns), code, np.uint8), np.full((16, 1), 0.5, np.float32))
    panels = pack_panels(fields, I8_R)
    x = np.ones((2, columns), np.float32)
    x[1] = -1
    expected = exactly(panels, 16, x)
    assert abs(expected[0, 0]) > 2e9 * 0.5 / 127
    np.testing.assert_array_equal(matmul(body, "I8_R", panels, 16, x), expected)
    np.testing.assert_array_equal(matmul(body, "I8_R", panels, 16, x[:1]), expected[:1])


@bodies
@pytest.mark.parametrize("scale", [0.0, 0.02])
def test_packed_tokens_are_those_of_the_twin(body, scale):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((13, 96)).astype(np.float32)
    x[3], x[4] = 0, 1e-33
    x[5, 17] = 1e6  # all others are lost beside it, or it is cut
    for tokens in (1, 2, 6, 13):
        codes, scales, sums = PackedTokens(body, x[:tokens], scale).unpack(body.isa.tile)
        expected, their_scales = quantized_rows(x[:tokens], scale)
        np.testing.assert_array_equal(codes, expected)
        np.testing.assert_array_equal(scales, their_scales)
        np.testing.assert_array_equal(sums, expected.astype(np.int64).sum(axis=1))


@bodies
@pytest.mark.parametrize("scale", [0.0, 0.02])
def test_what_is_not_finite_stays_in_its_token(body, scale):
    """A NaN makes the token's results NaN. An infinity does so too, where the scale is the token's own; where it is
    given it is cut, as all that lies beyond."""
    rng = np.random.default_rng(3)
    panels = random_panels(rng, "I8_R", 32, 64)
    x = rng.standard_normal((4, 64)).astype(np.float32)
    x[1, 40], x[2, 7] = np.nan, np.inf
    result = matmul(body, "I8_R", panels, 32, x, scale=scale)
    assert np.isnan(result[1]).all()
    assert np.isfinite(result[[0, 3]]).all()
    assert np.isfinite(result[2]).all() == (scale > 0)
    if scale:
        x[2, 7] = 127 * scale
        np.testing.assert_array_equal(result[2], matmul(body, "I8_R", panels, 32, x, scale=scale)[2])


def test_rows_of_an_embedding_are_the_decoded_ones():
    rng = np.random.default_rng(4)
    panels = random_panels(rng, "I8_R", 37, 288)
    ids, count = np.array([0, 36, 15, 16, 3], np.int64), np.array([5], np.int64)
    out = np.full((5, 288), np.nan, np.float32)
    args = embedding.Args(address(panels), 288, address(ids), address(out), out.strides[0], address(count), 37)
    call(NATIVE.kernel("embedding:I8_R"), args, threads=2)
    np.testing.assert_array_equal(out, decode(panels.reshape(-1), 37, 288, "I8_R")[ids])
