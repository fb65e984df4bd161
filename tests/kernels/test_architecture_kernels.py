"""The kernels of some architectures only (layer norm, head norm, activations, ...) against their NumPy twins."""

from types import SimpleNamespace

import numpy as np
import pytest
from kernel_calls import BODIES, Packed, address, call

from edgeq.blocks.activations import quantized
from edgeq.blocks.reference import encode
from edgeq.graph.aligned import round_up
from edgeq.graph.buffers import Buffer
from edgeq.graph.control import new_control
from edgeq.graph.row_tables import RowTables
from edgeq.graph.tape import Tape
from edgeq.graph.value import Value
from edgeq.ops import (
    Rope,
    activation,
    copy_rows,
    elementwise,
    grid_rope,
    head_gate,
    head_layer_norm,
    head_norm,
    layer_norm,
    lerp,
    norm,
    positions,
    short_conv,
)
from edgeq.ops.rope import rope_tables

BODY = next(body for body in BODIES if body.native)


def rows(x: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """x with rows padded to 32 columns and 16 rows."""
    padded = np.full((round_up(len(x), 16), round_up(x.shape[1], 32)), fill, np.float32)
    padded[: len(x), : x.shape[1]] = x
    return padded


def bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


XIELU = activation.xielu_parameters(0.3, -0.4, 0.5, -1e-6)


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
    here = (address(found), found.strides[0])
    args = head_norm.Args(*here, heads, head_dim, address(weight), bits(1e-6), address(count), *here)
    call(BODY.kernel("head_norm"), args, threads=threads)
    np.testing.assert_allclose(found, head_norm.reference(x, weight, 1e-6), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("head_dim", [8, 40, 128])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("apart", [False, True])
def test_head_layer_norm_matches_twin(head_dim, threads, apart):
    """Weights of all heads and a bias, or of each and none."""
    rng = np.random.default_rng(head_dim)
    tokens, heads = 3, 5
    x = 3 + rng.standard_normal((tokens, heads, head_dim)).astype(np.float32) * 4
    weight = rng.standard_normal((heads, head_dim) if apart else head_dim).astype(np.float32)
    bias = None if apart else rng.standard_normal(head_dim).astype(np.float32)
    found, count = x.copy(), np.array([tokens], np.int64)
    where = address(found), found.strides[0], heads, head_dim, address(weight), 4 * head_dim if apart else 0
    args = head_layer_norm.Args(*where, 0 if bias is None else address(bias), bits(1e-6), address(count))
    call(BODY.kernel("head_layer_norm"), args, threads=threads)
    np.testing.assert_allclose(found, head_layer_norm.reference(x, weight, bias, 1e-6), rtol=4e-6, atol=4e-6)


@pytest.mark.parametrize("head_dim", [8, 40, 128])
@pytest.mark.parametrize("threads", [1, 3])
def test_head_gate_matches_twin(head_dim, threads):
    """And changes nothing else: of rows, of heads, of gates."""
    rng = np.random.default_rng(head_dim)
    tokens, heads = 3, 5
    x = rng.standard_normal((tokens + 1, heads, head_dim)).astype(np.float32)
    gate = (4 * rng.standard_normal((tokens + 1, 16))).astype(np.float32)
    gate[0, 0], gate[0, 1] = 200.0, -200.0
    found, before, count = x.copy(), gate.copy(), np.array([tokens], np.int64)
    where = address(found), found.strides[0], heads, head_dim, address(gate), gate.strides[0], address(count)
    call(BODY.kernel("head_gate"), head_gate.Args(*where), threads=threads)
    expected = head_gate.reference(x[:tokens], gate[:tokens, :heads])
    np.testing.assert_allclose(found[:tokens], expected, rtol=2e-6, atol=1e-7)
    assert (found[tokens] == x[tokens]).all() and (gate == before).all()


@pytest.mark.parametrize("width", [64, 80])
@pytest.mark.parametrize("gated", [False, True])
def test_lerp_matches_twin(width, gated):
    rng = np.random.default_rng(width)
    x, y, gate = rng.standard_normal((3, 3, width)).astype(np.float32)
    gate[0, :2] = 200.0, -200.0
    weights = rng.standard_normal(3 * width).astype(np.float32)  # the last of three rows, with nothing behind it
    source, other, gates, out, count = rows(x), rows(y), rows(gate), Out(x), np.array([3], np.int64)
    by = (address(gates), gates.strides[0]) if gated else (address(weights) + 8 * width, 0)
    args = lerp.Args(address(source), address(other), source.strides[0], *by, width, *out.arguments, address(count))
    call(BODY.kernel(f"lerp:{'gate' if gated else 'weight'}"), args, threads=2)
    out.check(lerp.reference(x, y, gate if gated else weights[2 * width :], gated))


@pytest.mark.parametrize("kind", activation.FUNCTIONS)
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
    tail = (address(count), address(XIELU), source.strides[0])
    call(kernel, activation.Args(*head, *out.arguments, *tail), threads=2)
    out.check(activation.reference(x, kind, up, XIELU.tolist()), atol=4e-6 if kind in ("gelu", "xielu") else 1e-6)


@pytest.mark.parametrize("kind", activation.FUNCTIONS)
def test_not_a_number_stays_one(kind):
    x = np.array([[np.nan, 1.0]], np.float32)
    source, out, count = rows(x), Out(x), np.array([1], np.int64)
    head = (address(source), 0, source.strides[0], 2)
    call(BODY.kernel(f"activation:{kind}"), activation.Args(*head, *out.arguments, address(count), address(XIELU), 0))
    assert np.isnan(out.rows[0, 0]) and out.rows[0, 1] > 0.5


@pytest.mark.parametrize("kind", elementwise.KINDS)
@pytest.mark.parametrize(("tokens", "width"), [(1, 64), (5, 100)])
def test_elementwise_matches_twin(kind, tokens, width):
    rng = np.random.default_rng(width)
    x, y = rng.standard_normal((2, tokens, width)).astype(np.float32) * 9
    x[0, :2] = 1e4, -1e4
    gate = rng.standard_normal((tokens, 1)).astype(np.float32) * 5
    gate, factor = (np.abs(gate), -1.7) if kind == "clamp" else (gate, 1.7)
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
            bits(factor),
            address(count),
        ),
        threads=3,
    )
    expected = elementwise.reference(kind, x, y, gate, factor)
    np.testing.assert_allclose(found[:tokens, :width], expected, rtol=2e-6, atol=2e-6)
    assert not found[:, width:].any() and not found[tokens:].any()


def test_positions_match_twin():
    rng = np.random.default_rng(3)
    x, weights = rng.standard_normal((5, 40)).astype(np.float32), rng.standard_normal((23, 40)).astype(np.float32)
    found, panels = rows(x), np.array(encode(weights, "F32"))
    count, here = np.array([5], np.int64), np.array([14, 15, 16, 0, 22], np.int64)
    head = (address(panels), 40, address(found), found.strides[0])
    call(BODY.kernel("positions"), positions.Args(*head, address(count), address(here)), threads=2)
    np.testing.assert_array_equal(found[:5, :40], positions.reference(x, weights, here))


@pytest.mark.parametrize("head_dim", [8, 20])
def test_heads_of_a_grid_match_twin(head_dim):
    """Each half of a head is rotated by itself, whatever the kernel of rope.py thinks of it."""
    x = np.random.default_rng(6).standard_normal((9, 3, head_dim)).astype(np.float32)
    found, tape, tables = rows(x.reshape(9, -1)), Tape(new_control(1)), RowTables(16, 1)
    rope = Rope(tuple(0.4**i for i in range(head_dim // 4)))
    low = SimpleNamespace(
        buffer=lambda value: Buffer(found, found.strides[0]),
        tables=tables,
        tape=tape,
        context=16,
        asked=16,
        kv="f32",
        places=256,
        shared={},
        scratch=SimpleNamespace(nbytes=0),
    )
    tables.with_places(16)[:, :9], tables.counts[0] = np.divmod(np.arange(9), 4)[::-1], 9
    op = grid_rope.RotateInGrid(Value(0, 3 * head_dim), head_dim, rope)
    op.lower(low, Value(0, 3 * head_dim))
    for name, args, _ in tape.steps:
        call(BODY.kernel(name), args, threads=2)
    turned = grid_rope.reference(x, rope_tables(rope.inverse_frequencies, 16), tables.with_places(16)[:, :9])
    np.testing.assert_allclose(found[:9, : 3 * head_dim], turned.reshape(9, -1), rtol=1e-6, atol=1e-6)
    assert tape.barriers == [False, True] and np.abs(turned - x)[5:8].min() > 0
    assert not found[:, 3 * head_dim :].any() and not found[9:].any()


def test_copied_rows_match_twin():
    x, out = np.random.default_rng(4).standard_normal((9, 48)).astype(np.float32), np.zeros((6, 48), np.float32)
    which, count = np.array([8, 0, 3, 3], np.int64), np.array([4], np.int64)
    args = copy_rows.Args(address(x), x.strides[0], 48, address(out), out.strides[0], address(which), address(count))
    call(BODY.kernel("copy_rows"), args, threads=3)
    np.testing.assert_array_equal(out[:4], copy_rows.reference(x, which))
    call(BODY.kernel("copy_rows"), args._replace(which=0), threads=3)
    np.testing.assert_array_equal(out[:4], copy_rows.reference(x, np.arange(4)))
    assert not out[4:].any()


@pytest.mark.parametrize("taps", [1, 3, 4])
@pytest.mark.parametrize("has_bias", [False, True])
def test_short_conv_matches_twin(taps, has_bias):
    """Two sequences, on several threads: eleven tokens of each at once, then one by one; one begins a page within."""
    rng = np.random.default_rng(taps)
    tokens, width, starts = 14, 48, (0, 250)
    weight = rng.standard_normal((width, taps)).astype(np.float32)
    bias = rng.standard_normal(width).astype(np.float32) if has_bias else None
    panels = np.array(encode(weight, "F32"))
    texts = [rng.standard_normal((start + tokens, 3 * width)).astype(np.float32) for start in starts]
    memory = [[np.full((256, width), np.nan, np.float32) for _ in range(2)] for _ in texts]
    tables = [np.array([address(page) for page in pages], np.int64) for pages in memory]
    found = [np.zeros((len(text), width), np.float32) for text in texts]
    turns = [[(1, 0, 250)], [(0, 0, 11), (1, 250, 11)], *([(1, 250 + at, 1), (0, at, 1)] for at in (11, 12, 13))]
    for turn in turns:
        x = np.concatenate([texts[which][first:][:count] for which, first, count in turn])
        out, count = np.zeros((len(x), width), np.float32), np.array([len(x)], np.int64)
        here = np.concatenate([np.arange(first, first + count) for _, first, count in turn])
        pages = np.concatenate([np.full(count, address(tables[which])) for which, _, count in turn])
        call(
            BODY.kernel("short_conv"),
            short_conv.Args(
                x=address(x),
                x_stride=x.strides[0],
                width=width,
                weight=address(panels),
                taps=taps,
                bias=address(bias),
                kept=0,
                pages=address(pages),
                out=address(out),
                out_stride=out.strides[0],
                tokens=address(count),
                positions=address(here),
            ),
            threads=2,
        )
        for which, first, rows_of in turn:
            found[which][first:][:rows_of], out = out[:rows_of], out[rows_of:]
    for text, out in zip(texts, found, strict=True):
        np.testing.assert_allclose(out, short_conv.reference(text, weight, bias), rtol=1e-5, atol=1e-5)


def test_a_head_norm_beside_what_it_norms():
    x = np.random.default_rng(1).standard_normal((3, 2, 40)).astype(np.float32)
    found, before, count, ones = (
        np.zeros((3, 96), np.float32),
        x.copy(),
        np.array([3], np.int64),
        np.ones(64, np.float32),
    )
    head = (address(x), x.strides[0], 2, 40, address(ones), bits(1e-6), address(count))
    call(BODY.kernel("head_norm"), head_norm.Args(*head, address(found), found.strides[0]), threads=2)
    np.testing.assert_array_equal(x, before)
    expected = head_norm.reference(x, ones[:40], 1e-6)
    np.testing.assert_allclose(found[:, :80].reshape(3, 2, 40), expected, rtol=2e-6, atol=1e-6)


def test_an_activation_times_a_part_of_a_row():
    x, wide = (np.random.default_rng(n).standard_normal((3, n)).astype(np.float32) for n in (64, 256))
    source, other, out, count = rows(x), rows(wide), Out(x), np.array([3], np.int64)
    head = (address(source), address(other) + 4 * 128, source.strides[0], 64)
    tail = (address(count), address(XIELU), other.strides[0])
    call(BODY.kernel("activation:gelu_tanh-mul"), activation.Args(*head, *out.arguments, *tail), threads=2)
    out.check(activation.reference(x, "gelu_tanh", wide[:, 128:192]))
