"""The kernels of recurrent layers against their NumPy twins: in one piece and in any others, the same bits."""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call

from edgeq.blocks.reference import encode
from edgeq.graph.aligned import round_up
from edgeq.kernels.layout import RUN_WORDS
from edgeq.ops import (
    causal_conv,
    channel_delta,
    delta_net,
    gated_norm,
    gated_recurrence,
    previous,
    selective_scan,
    state_space,
    wkv,
)

BODY = next(body for body in BODIES if body.native)
# Turns of runs of two texts, (which, first position, rows): in pieces that end anywhere, beside one another, one by one
PIECES = [
    [(0, 0, 5), (1, 0, 260)],
    [(1, 260, 1), (0, 5, 245)],
    [(0, 250, 12)],
    *([(0, 262 + at, 1), (1, 261 + at, 1)] for at in range(3)),
]
LENGTHS = (265, 264)


def bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


class Texts:
    """Two sequences, each of two pages of `nbytes`, which hold anything before they are written."""

    def __init__(self, nbytes: int) -> None:
        self.pages = [[np.full(nbytes // 4 + 16, np.nan, np.float32) for _ in range(2)] for _ in LENGTHS]
        self.tables = [np.array([address(page) for page in pages], np.int64) for pages in self.pages]
        self.kept = 64  # where the part begins

    def places(self, turn: list[tuple[int, int, int]]) -> tuple[list[object], dict[str, int]]:
        """What kernels read of a turn's rows, and where."""
        rows = [0, *np.cumsum([count for _, _, count in turn])]
        runs = np.zeros((len(turn), RUN_WORDS), np.int64)
        runs[:, 0], runs[:, 1], runs[:, 2] = rows[:-1], [c for _, _, c in turn], [first for _, first, _ in turn]
        pages = np.concatenate([np.full(count, address(self.tables[which])) for which, _, count in turn])
        counts = np.array([len(turn), rows[-1]], np.int64)
        words = {"runs": address(runs), "run_count": address(counts), "pages": address(pages), "kept": self.kept}
        return [runs, pages, counts], words


def in_turns(turns, texts: list[np.ndarray], width: int, run) -> list[np.ndarray]:
    """What `run(rows, turn)` gives for each text, put together."""
    found = [np.zeros((len(text), width), np.float32) for text in texts]
    for turn in turns:
        out = run([np.ascontiguousarray(texts[which][first:][:count]) for which, first, count in turn], turn)
        for which, first, count in turn:
            found[which][first:][:count], out = out[:count], out[count:]
    return found


WHOLE = [[(0, 0, LENGTHS[0]), (1, 0, LENGTHS[1])]]


@pytest.mark.parametrize("taps", [2, 3, 4])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("kind", ["silu", "plain"])
def test_causal_conv_matches_twin_in_any_pieces(taps, has_bias, kind):
    rng, width = np.random.default_rng(taps), 48
    weight = rng.standard_normal((width, taps)).astype(np.float32)
    bias = np.pad(rng.standard_normal(width), (0, 16)).astype(np.float32) if has_bias else None
    panels = np.array(encode(weight, "F32"))
    inputs = [rng.standard_normal((length, width)).astype(np.float32) for length in LENGTHS]

    def computed(turns, threads):
        texts = Texts(width * (taps - 1) * 4 + 64)

        def run(rows, turn):
            x, (_keep, words) = np.concatenate(rows), texts.places(turn)
            out = np.zeros_like(x)
            args = causal_conv.Args(
                x=address(x),
                x_stride=x.strides[0],
                width=width,
                weight=address(panels),
                taps=taps,
                bias=address(bias),
                out=address(out),
                out_stride=out.strides[0],
                **words,
            )
            call(BODY.kernel(f"causal_conv:{kind}"), args, threads)
            return out

        return in_turns(turns, inputs, width, run)

    pieces, whole = computed(PIECES, 2), computed(WHOLE, 1)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        expected = causal_conv.reference(text, weight, None if bias is None else bias[:width], kind == "silu")
        np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-5)


SHAPES = [(2, 2, 16, 32, 0), (6, 2, 32, 16, 0), (6, 2, 16, 16, 1), (17, 1, 16, 16, 0)]
STRENGTHS = (1.0, 2.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("heads", "key_heads", "key_dim", "value_dim", "in_turn", "strength"),
    [(*shape, strength) for shape, strength in zip(SHAPES, STRENGTHS, strict=True)],
)
def test_delta_net_matches_twin_in_any_pieces(heads, key_heads, key_dim, value_dim, in_turn, strength):
    rng = np.random.default_rng(heads)
    keys, width, padded = key_heads * key_dim, heads * value_dim, round_up(heads, 32)
    inputs = [rng.standard_normal((length, 2 * keys + width + 2 * padded)).astype(np.float32) for length in LENGTHS]
    rate = np.zeros(padded, np.float32)
    bias = np.zeros(padded, np.float32)
    rate[:heads], bias[:heads] = -rng.uniform(0.05, 1.0, heads), rng.standard_normal(heads)

    def computed(turns, threads):
        texts = Texts(key_dim * width * 4 + 64)

        def run(rows, turn):
            rows = np.concatenate(rows)
            x = np.ascontiguousarray(rows[:, : 2 * keys + width])
            gates = [np.ascontiguousarray(rows[:, -2 * padded :][:, at:][:, :padded]) for at in (0, padded)]
            _keep, words = texts.places(turn)
            out = np.zeros((len(x), width), np.float32)
            factors = np.full((len(x), delta_net.FACTORS, round_up(heads, 16)), np.nan, np.float32)
            args = delta_net.Args(
                x=address(x),
                x_stride=x.strides[0],
                decay=address(gates[0]),
                beta=address(gates[1]),
                gates_stride=gates[0].strides[0],
                rate=address(rate),
                bias=address(bias),
                heads=heads,
                key_heads=key_heads,
                turns=in_turn,
                key_dim=key_dim,
                value_dim=value_dim,
                scale=bits(key_dim**-0.5),
                strength=bits(strength),
                factors=address(factors),
                parts=width // 16,
                part_bytes=64 * key_dim,
                out=address(out),
                out_stride=out.strides[0],
                tokens=words["run_count"] + 8,
                **words,
            )
            call(BODY.kernel("delta_net:factors"), args, threads)
            call(BODY.kernel("delta_net:scan"), args, threads)
            return out

        return in_turns(turns, inputs, width, run)

    pieces, whole = computed(PIECES, 3), computed(WHOLE, 1)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        q, k, v, decay, beta = np.split(text, np.cumsum([keys, keys, width, padded]), axis=1)
        q, k = (part.reshape(len(text), key_heads, key_dim) for part in (q, k))
        if in_turn:
            q, k = (np.tile(part, (1, heads // key_heads, 1)) for part in (q, k))
        v, gates = v.reshape(len(text), heads, value_dim), (decay[:, :heads], beta[:, :heads])
        expected = delta_net.reference(q, k, v, *gates, rate[:heads], bias[:heads], strength)
        np.testing.assert_allclose(one, expected.reshape(len(text), width), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("every_group", [False, True])
def test_gated_norm_matches_twin(gate_first, every_group):
    rng, size, groups = np.random.default_rng(3), 48, 3
    x, gate = rng.standard_normal((2, 5, size * groups)).astype(np.float32)
    weight = rng.standard_normal(size * groups if every_group else size).astype(np.float32)
    found, count = x.copy(), np.array([4], np.int64)
    args = gated_norm.Args(
        x=address(found),
        x_stride=found.strides[0],
        gate=address(gate),
        gate_stride=gate.strides[0],
        groups=groups,
        size=size,
        weight=address(weight),
        weight_step=4 * size * every_group,
        eps=bits(1e-5),
        tokens=address(count),
    )
    call(BODY.kernel(f"gated_norm:{'first' if gate_first else 'last'}"), args, threads=3)
    expected = gated_norm.reference(x, gate, weight, size, 1e-5, gate_first)
    np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[4], x[4])


@pytest.mark.parametrize(("heads", "groups", "head_dim", "size"), [(4, 1, 32, 16), (6, 2, 16, 48), (18, 1, 16, 16)])
@pytest.mark.parametrize("least", [0.0, 0.8])
def test_state_space_matches_twin_in_any_pieces(heads, groups, head_dim, size, least):
    rng = np.random.default_rng(heads)
    width, both, padded = heads * head_dim, groups * size, round_up(heads, 32)
    inputs = [rng.standard_normal((length, width + 2 * both + padded)).astype(np.float32) for length in LENGTHS]
    vectors = np.zeros((3, padded), np.float32)
    vectors[:, :heads] = -rng.uniform(0.05, 1.0, heads), rng.standard_normal(heads), rng.standard_normal(heads)

    def computed(turns, threads):
        texts = Texts(size * width * 4 + 64)

        def run(rows, turn):
            rows = np.concatenate(rows)
            x, step = np.ascontiguousarray(rows[:, :-padded]), np.ascontiguousarray(rows[:, -padded:])
            _keep, words = texts.places(turn)
            out = np.zeros((len(x), width), np.float32)
            factors = np.full((len(x), state_space.FACTORS, round_up(heads, 16)), np.nan, np.float32)
            args = state_space.Args(
                x=address(x),
                x_stride=x.strides[0],
                step=address(step),
                step_stride=step.strides[0],
                rate=address(vectors[0]),
                bias=address(vectors[1]),
                skip=address(vectors[2]),
                heads=heads,
                head_dim=head_dim,
                groups=groups,
                size=size,
                factors=address(factors),
                parts=width // 16,
                part_bytes=64 * size,
                out=address(out),
                out_stride=out.strides[0],
                tokens=words["run_count"] + 8,
                least=int(np.float32(least).view(np.int32)),
                **words,
            )
            call(BODY.kernel("state_space:factors"), args, threads)
            call(BODY.kernel("state_space:scan"), args, threads)
            return out

        return in_turns(turns, inputs, width, run)

    pieces, whole = computed(PIECES, 3), computed(WHOLE, 1)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        x, b, c, z = np.split(text, np.cumsum([width, both, both]), axis=1)
        b, c = (part.reshape(len(text), groups, size) for part in (b, c))
        x = x.reshape(len(text), heads, head_dim)
        expected = state_space.reference(x, b, c, z[:, :heads], *vectors[:, :heads], least)
        np.testing.assert_allclose(one, expected.reshape(len(text), width), rtol=2e-4, atol=5e-5)


@pytest.mark.parametrize(("channels", "size"), [(16, 1), (48, 5), (80, 16)])
def test_selective_scan_matches_twin_in_any_pieces(channels, size):
    rng = np.random.default_rng(size)
    inputs = [rng.standard_normal((length, 2 * channels + 2 * size)).astype(np.float32) for length in LENGTHS]
    rate, skip = -rng.uniform(0.02, 2.0, (channels, size)).astype(np.float32), np.zeros(96, np.float32)
    skip[:channels] = rng.standard_normal(channels)
    panels = np.array(encode(rate, "F32"))
    ends = np.cumsum([channels, channels, size])

    def computed(turns, threads):
        texts = Texts(size * channels * 4 + 64)

        def run(rows, turn):
            x, step, b, c = (np.ascontiguousarray(part) for part in np.split(np.concatenate(rows), ends, axis=1))
            _keep, words = texts.places(turn)
            out = np.zeros_like(x)
            args = selective_scan.Args(
                x=address(x),
                x_stride=x.strides[0],
                step=address(step),
                step_stride=step.strides[0],
                b=address(b),
                b_stride=b.strides[0],
                c=address(c),
                c_stride=c.strides[0],
                rate=address(panels),
                skip=address(skip),
                size=size,
                parts=channels // 16,
                part_bytes=64 * size,
                out=address(out),
                out_stride=out.strides[0],
                **words,
            )
            call(BODY.kernel("selective_scan"), args, threads)
            return out

        return in_turns(turns, inputs, channels, run)

    pieces, whole = computed(PIECES, 3), computed(WHOLE, 1)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        expected = selective_scan.reference(*np.split(text, ends, axis=1), rate, skip[:channels])
        np.testing.assert_allclose(one, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("width", [32, 80])
def test_previous_matches_twin_in_any_pieces(width):
    rng = np.random.default_rng(width)
    inputs = [rng.standard_normal((length, width)).astype(np.float32) for length in LENGTHS]
    padded = round_up(width, 32)

    def computed(turns, threads):
        texts = Texts(padded * 4 + 64)

        def run(rows, turn):
            x, (_keep, words) = np.pad(np.concatenate(rows), ((0, 0), (0, padded - width))), texts.places(turn)
            out = np.full_like(x, np.nan)
            places = {"x": address(x), "x_stride": x.strides[0], "out": address(out), "out_stride": out.strides[0]}
            call(BODY.kernel("previous"), previous.Args(vectors=padded // 16, **places, **words), threads)
            assert not out[:, width:].any()
            return out[:, :width]

        return in_turns(turns, inputs, width, run)

    pieces, whole = computed(PIECES, 3), computed(WHOLE, 1)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, previous.reference(text))


@pytest.mark.parametrize(
    ("heads", "size", "gated", "normed"),
    [(3, 16, True, True), (2, 64, True, True), (1, 48, False, True), (5, 32, False, False)],
)
def test_wkv_matches_twin_in_any_pieces(heads, size, gated, normed):
    rng, width, eps = np.random.default_rng(size), heads * size, 64e-5
    inputs = [rng.standard_normal((length, 6 * width)).astype(np.float32) for length in LENGTHS]
    inputs[0][3, 2 * width : 2 * width + size] = 0.0  # a key of no length
    inputs[0][:, width : 2 * width] *= 4.0
    vectors = rng.uniform(-1.5, 1.5, (5, width)).astype(np.float32)

    def computed(turns, threads):
        texts = Texts(size * width * 4 + 64)

        def run(rows, turn):
            parts = [np.ascontiguousarray(part) for part in np.split(np.concatenate(rows), 6, axis=1)]
            _keep, words = texts.places(turn)
            out = np.zeros_like(parts[0])
            prepared = np.full((len(out), wkv.PREPARED, width), np.nan, np.float32)
            args = wkv.Args(
                *(address(part) for part in parts[:5]),
                gate=address(parts[5]) if gated else 0,
                stride=parts[0].strides[0],
                kappa=address(vectors[0]),
                alpha=address(vectors[1]),
                rho=address(vectors[2]),
                weight=address(vectors[3]) if normed else 0,
                bias=address(vectors[4]) if normed else 0,
                eps=bits(eps),
                heads=heads,
                size=size,
                prepared=address(prepared),
                parts=width // 16,
                part_bytes=64 * size,
                out=address(out),
                out_stride=out.strides[0],
                tokens=words["run_count"] + 8,
                **words,
            )
            for variant in ("prepare", "scan", "finish"):
                call(BODY.kernel(f"wkv:{variant}"), args, threads)
            return out

        return in_turns(turns, inputs, width, run)

    pieces, whole = computed(PIECES, 3), computed(WHOLE, 1)
    of_heads = vectors.reshape(5, heads, size)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        *parts, gate = (part.reshape(len(text), heads, size) for part in np.split(text, 6, axis=1))
        norm = of_heads[3:] if normed else None
        expected = wkv.reference(*parts, gate if gated else None, of_heads[:3], norm, eps).reshape(len(text), width)
        np.testing.assert_allclose(one, expected, rtol=5e-4, atol=1e-4)


def test_gated_recurrence_matches_twin_in_any_pieces():
    rng, width = np.random.default_rng(4), 48
    inputs = [rng.standard_normal((length, 3 * width)).astype(np.float32) for length in LENGTHS]
    vectors = rng.standard_normal((3, width)).astype(np.float32)
    vectors[2] -= 3  # some remember for long

    def computed(turns, threads):
        texts = Texts(width * 4 + 64)

        def run(rows, turn):
            x, take, forget = (np.ascontiguousarray(part) for part in np.split(np.concatenate(rows), 3, axis=1))
            _keep, words = texts.places(turn)
            positions = np.concatenate([np.arange(first, first + count) for _, first, count in turn])
            out = np.zeros_like(x)
            args = gated_recurrence.Args(
                x=address(x),
                x_stride=x.strides[0],
                take=address(take),
                take_stride=take.strides[0],
                forget=address(forget),
                forget_stride=forget.strides[0],
                take_bias=address(vectors[0]),
                forget_bias=address(vectors[1]),
                rate=address(vectors[2]),
                positions=address(positions),
                parts=width // 16,
                part_bytes=64,
                out=address(out),
                out_stride=out.strides[0],
                **words,
            )
            call(BODY.kernel("gated_recurrence"), args, threads)
            return out

        return in_turns(turns, inputs, width, run)

    pieces, whole = computed(PIECES, 3), computed(WHOLE, 1)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        expected = gated_recurrence.reference(*np.split(text, 3, axis=1), *vectors)
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "size"), [(2, 32), (17, 16)])
def test_channels_that_forget_match_twin_in_any_pieces(heads, size):
    rng, width, padded = np.random.default_rng(heads), heads * size, round_up(heads, 32)
    inputs = [rng.standard_normal((length, 4 * width + padded)).astype(np.float32) for length in LENGTHS]
    rate = -rng.uniform(0.05, 1.0, padded).astype(np.float32)
    bias = rng.standard_normal(width).astype(np.float32) - 2

    def computed(turns, threads):
        texts = Texts(size * width * 4 + 64)

        def run(rows, turn):
            parts = np.split(np.concatenate(rows), [3 * width, 4 * width], axis=1)
            x, forget, beta = (np.ascontiguousarray(part) for part in parts)
            _keep, words = texts.places(turn)
            out = np.zeros((len(x), width), np.float32)
            factors = np.full((len(x), channel_delta.FACTORS, round_up(heads, 16)), np.nan, np.float32)
            decays = np.full((len(x), width), np.nan, np.float32)
            args = channel_delta.Args(
                x=address(x),
                x_stride=x.strides[0],
                forget=address(forget),
                forget_stride=forget.strides[0],
                beta=address(beta),
                beta_stride=beta.strides[0],
                rate=address(rate),
                bias=address(bias),
                heads=heads,
                size=size,
                scale=bits(size**-0.5),
                factors=address(factors),
                decays=address(decays),
                parts=width // 16,
                part_bytes=64 * size,
                out=address(out),
                out_stride=out.strides[0],
                tokens=words["run_count"] + 8,
                **words,
            )
            call(BODY.kernel("channel_delta:factors"), args, threads)
            call(BODY.kernel("channel_delta:scan"), args, threads)
            return out

        return in_turns(turns, inputs, width, run)

    pieces, whole = computed(PIECES, 3), computed(WHOLE, 1)
    for text, one, other in zip(inputs, pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)
        q, k, v, forget = (text[:, i * width : (i + 1) * width].reshape(len(text), heads, size) for i in range(4))
        beta = text[:, 4 * width : 4 * width + heads]
        expected = channel_delta.reference(q, k, v, forget, beta, rate[:heads], bias.reshape(heads, size))
        np.testing.assert_allclose(one, expected.reshape(len(text), width), rtol=2e-4, atol=5e-5)
