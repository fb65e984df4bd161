"""The kernels of some architectures only (layer norm, head norm, activations, ...) against their NumPy twins."""

import numpy as np
import pytest
from kernel_calls import BODIES, Packed, address, call

from edgeq.blocks.activations import quantized
from edgeq.blocks.reference import encode
from edgeq.graph.aligned import round_up
from edgeq.ops import activation, elementwise, head_norm, layer_norm, norm, positions, short_conv

BODY = next(body for body in BODIES if body.native)


def rows(x: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """x with rows padded to 32 columns and 16 rows."""
    padded = np.full((round_up(len(x), 16), round_up(x.shape[1], 32)), fill, np.float32)
    padded[: len(x), : x.shape[1]] = x
    return padded


def bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


class Out:
    """Rows that a kernel writes, packed too where their width allows it."""

    def __init__(self, like: np.ndarray, start: np.ndarray | None = None):
        self.tokens, self.width = like.shape
        self.rows = np.zeros_like(rows(like)) if start is None else rows(start)
        self.packed = Packed(BODY, np.zeros_like(like)) if self.width % 32 == 0 else None
        words = (address(self.packed.words), address(self.packed.sums)) if self.packed else (0, 0)
        self.arguments = (address(self.rows), self.rows.strides[0], *words)

    def check(self, expected: np.ndarray, rtol: float = 2e-6, atol: float = 2e-6) -> None:
        """Values as expected, padding still zero, and the packed form that of the values."""
        found = self.rows[: self.tokens, : self.width]
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)
        assert not self.rows[: self.tokens, self.width :].any()
        if self.packed:
            np.testing.assert_array_equal(self.packed.unpack(BODY.isa.tile)[0], quantized(found)[0])


@pytest.mark.parametrize(("tokens", "width"), [(1, 64), (5, 192), (3, 172), (2, 40)])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("has_bias", [False, True])
def test_layer_norm_matches_twin(tokens, width, threads, has_bias):
    rng = np.random.default_rng(width)
    x = rng.standard_normal((tokens, width)).astype(np.float32) * 3 + 5
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    source, scale, shift, out = rows(x), rows(weight[None]), rows(bias[None]), Out(x)
    count = np.array([tokens], np.int64)
    head = (address(source), source.strides[0], width, address(scale), address(shift) if has_bias else 0, bits(1e-5))
    call(BODY.kernel("layer_norm"), layer_norm.Args(*head, *out.arguments, address(count)), threads=threads)
    out.check(layer_norm.reference(x, weight, bias if has_bias else None, 1e-5), atol=1e-5)


@pytest.mark.parametrize(("tokens", "width"), [(1, 64), (3, 172)])
def test_norm_adds(tokens, width):
    rng = np.random.default_rng(width)
    x, before = rng.standard_normal((2, tokens, width)).astype(np.float32)
    weight = rng.standard_normal(width).astype(np.float32)
    source, scale, out, count = rows(x), rows(weight[None]), Out(x, before), np.array([tokens], np.int64)
    head = (address(source), source.strides[0], width, address(scale), bits(1e-5))
    call(BODY.kernel("norm:add"), norm.Args(*head, *out.arguments, address(count)), threads=2)
    out.check(before + norm.reference(x, weight, 1e-5))


@pytest.mark.parametrize("head_dim", [8, 40, 128])
@pytest.mark.parametrize("threads", [1, 3])
def test_head_norm_matches_twin(head_dim, threads):
    rng = np.random.default_rng(head_dim)
    tokens, heads = 3, 5
    x = rng.standard_normal((tokens, heads, head_dim)).astype(np.float32) * 4
    weight = rng.standard_normal(head_dim).astype(np.float32)
    found, count = x.copy(), np.array([tokens], np.int64)
    call(
        BODY.kernel("head_norm"),
        head_norm.Args(address(found), found.strides[0], heads, head_dim, address(weight), bits(1e-6), address(count)),
        threads=threads,
    )
    np.testing.assert_allclose(found, head_norm.reference(x, weight, 1e-6), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh", "relu", "relu2"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("width", [320, 300])
def test_activation_matches_twin(kind, gated, width):
    rng = np.random.default_rng(width)
    x = rng.standard_normal((3, width)).astype(np.float32) * 6
    x[0, :9] = [0.0, 100.0, -100.0, 88.0, -88.0, 1e9, -1e9, 13.0, -13.0]
    up = rng.standard_normal(x.shape).astype(np.float32) if gated else None
    source, other, out = rows(x), None if up is None else rows(up), Out(x)
    count = np.array([3], np.int64)
    head = (address(source), address(other), source.strides[0], width)
    kernel = BODY.kernel(f"activation:{kind}-mul" if gated else f"activation:{kind}")
    call(kernel, activation.Args(*head, *out.arguments, address(count)), threads=2)
    out.check(activation.reference(x, kind, up), atol=4e-6 if kind == "gelu" else 1e-6)


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh", "relu", "relu2"])
def test_not_a_number_stays_one(kind):
    x = np.array([[np.nan, 1.0]], np.float32)
    source, out, count = rows(x), Out(x), np.array([1], np.int64)
    head = (address(source), 0, source.strides[0], 2)
    call(BODY.kernel(f"activation:{kind}"), activation.Args(*head, *out.arguments, address(count)))
    assert np.isnan(out.rows[0, 0]) and out.rows[0, 1] > 0.5


@pytest.mark.parametrize("kind", ["scale", "add", "softcap", "gate"])
@pytest.mark.parametrize(("tokens", "width"), [(1, 64), (5, 100)])
def test_elementwise_matches_twin(kind, tokens, width):
    rng = np.random.default_rng(width)
    x, y = rng.standard_normal((2, tokens, width)).astype(np.float32) * 9
    x[0, :2] = 1e4, -1e4
    gate = rng.standard_normal((tokens, 1)).astype(np.float32) * 5
    found, other, row, count = rows(x), rows(y), rows(gate), np.array([tokens], np.int64)
    call(
        BODY.kernel(f"elementwise:{kind}"),
        elementwise.Args(
            address(found),
            found.strides[0],
            width,
            address(other),
            other.strides[0],
            address(row),
            row.strides[0],
            bits(1.7),
            address(count),
        ),
        threads=3,
    )
    expected = elementwise.reference(kind, x, y, gate, 1.7)
    np.testing.assert_allclose(found[:tokens, :width], expected, rtol=2e-6, atol=2e-6)
    assert not found[:, width:].any() and not found[tokens:].any()


@pytest.mark.parametrize("start", [0, 14])
def test_positions_match_twin(start):
    rng = np.random.default_rng(start)
    x, weights = rng.standard_normal((5, 40)).astype(np.float32), rng.standard_normal((23, 40)).astype(np.float32)
    found, panels = rows(x), np.array(encode(weights, "F32"))
    count, position = np.array([5], np.int64), np.array([start], np.int64)
    head = (address(panels), 40, address(found), found.strides[0])
    call(BODY.kernel("positions"), positions.Args(*head, address(count), address(position)), threads=2)
    np.testing.assert_array_equal(found[:5, :40], positions.reference(x, weights, start))


@pytest.mark.parametrize("taps", [1, 3, 4])
@pytest.mark.parametrize("has_bias", [False, True])
def test_short_conv_matches_twin(taps, has_bias):
    """Eleven tokens at once, then one by one, on several threads."""
    rng = np.random.default_rng(taps)
    tokens, width = 14, 48
    x = rng.standard_normal((tokens, 3 * width)).astype(np.float32)
    weight = rng.standard_normal((width, taps)).astype(np.float32)
    bias = rng.standard_normal(width).astype(np.float32) if has_bias else None
    panels, kept, out = np.array(encode(weight, "F32")), np.full((16, width), np.nan, np.float32), np.zeros((16, width))
    out = out.astype(np.float32)
    for first, tokens_now in ((0, 11), (11, 1), (12, 1), (13, 1)):
        count, position = np.array([tokens_now], np.int64), np.array([first], np.int64)
        call(
            BODY.kernel("short_conv"),
            short_conv.Args(
                address(x[first:]),
                x.strides[0],
                width,
                address(panels),
                taps,
                address(bias),
                address(kept),
                len(kept),
                address(out[first:]),
                out.strides[0],
                address(count),
                address(position),
            ),
            threads=2,
        )
    np.testing.assert_allclose(out[:tokens], short_conv.reference(x, weight, bias), rtol=1e-5, atol=1e-5)
