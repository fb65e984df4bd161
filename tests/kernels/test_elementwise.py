"""Activations, norm, rope, SwiGLU, embedding: kernels against their NumPy twins."""

import numpy as np
import pytest
from kernel_calls import BODIES, Packed, address, call, random_panels

from edgeq.blocks.activations import quantized
from edgeq.blocks.reference import decode
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.graph.aligned import aligned, round_up
from edgeq.graph.pages import KeysAndValues
from edgeq.ops import Heads, embedding, given_rows, norm, rope, silu_mul

BODY = next(body for body in BODIES if body.native)


def rows(x: np.ndarray) -> np.ndarray:
    """x with rows padded by zeros to 32 columns and 16 rows."""
    padded = np.zeros((round_up(len(x), 16), round_up(x.shape[1], 32)), np.float32)
    padded[: len(x), : x.shape[1]] = x
    return padded


@pytest.mark.parametrize("body", BODIES, ids=repr)
@pytest.mark.parametrize("tokens", [1, 3, 21])
def test_quantize_matches_twin(body, tokens):
    rng = np.random.default_rng(tokens)
    x = (rng.standard_normal((tokens, 160)) * 10.0 ** rng.integers(-6, 6, (tokens, 160))).astype(np.float32)
    x[0, :32] = 0
    x[-1, 32:64] = 1e-35
    codes, scales = Packed(body, x).unpack(body.isa.tile)
    expected_codes, expected_scales = quantized(x)
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_array_equal(scales, expected_scales)


def test_quantize_sums():
    x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    packed = Packed(BODY, x)
    codes, scales = quantized(x)
    groups = codes.reshape(2, 2, 16).astype(np.int32).sum(axis=2)
    sums = packed.sums[:40].reshape(2, 20)
    scaled = scales[0] * groups.sum(axis=1).astype(np.float32)
    np.testing.assert_array_equal(sums[:, 4:8].copy().view(np.float32)[:, 0], scaled)
    expected = -np.stack([groups.sum(axis=1), groups[:, 0], groups[:, 1]], axis=1)
    np.testing.assert_array_equal(sums[:, 8:].copy().view(np.int32), expected)


@pytest.mark.parametrize(("tokens", "width"), [(1, 64), (5, 192), (3, 172)])
@pytest.mark.parametrize("threads", [1, 3])
def test_norm_matches_twin(tokens, width, threads):
    rng = np.random.default_rng(width)
    x = rng.standard_normal((tokens, width)).astype(np.float32) * 3
    weight = rng.standard_normal(width).astype(np.float32)
    source, scale = rows(x), rows(weight[None])
    out, count = np.zeros_like(source), np.array([tokens], np.int64)
    packed = Packed(BODY, np.zeros_like(x)) if width % 32 == 0 else None
    words, sums = (address(packed.words), address(packed.sums)) if packed else (0, 0)
    call(
        BODY.kernel("norm"),
        norm.Args(
            address(source),
            source.strides[0],
            width,
            address(scale),
            int(np.float32(1e-5).view(np.int32)),
            address(out),
            out.strides[0],
            words,
            sums,
            address(count),
        ),
        threads=threads,
    )
    expected = norm.reference(x, weight, 1e-5)
    np.testing.assert_allclose(out[:tokens, :width], expected, rtol=2e-6, atol=1e-6)
    if packed:
        np.testing.assert_array_equal(packed.unpack(BODY.isa.tile)[0], quantized(out[:tokens, :width])[0])


def test_silu_mul_matches_twin():
    rng = np.random.default_rng(1)
    gate = np.concatenate([rng.standard_normal(300) * 8, [0.0, 100.0, -100.0, 88.0, -88.0, 1e30, -1e30]])
    gate = np.concatenate([gate, np.linspace(-90, 90, 13)]).astype(np.float32)[None]
    up = rng.standard_normal(gate.shape).astype(np.float32)
    source, other = rows(gate), rows(up)
    out, count = np.zeros_like(source), np.array([1], np.int64)
    call(
        BODY.kernel("silu_mul"),
        silu_mul.Args(
            address(source),
            address(other),
            source.strides[0],
            gate.shape[1],
            address(out),
            out.strides[0],
            0,
            0,
            address(count),
        ),
        threads=2,
    )
    np.testing.assert_allclose(out[:1, : gate.shape[1]], silu_mul.reference(gate, up), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("kind", ["f16", "f32"])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("head_dim", [8, 48])
def test_rope_matches_twin_and_fills_the_pages(kind, interleaved, head_dim):
    """Rows of two sequences in turn, at any positions, one of them in its second page."""
    rng = np.random.default_rng(head_dim)
    heads, kv_heads, places, positions = 4, 2, 256, np.array([14, 255, 15, 256, 16], np.int64)
    tokens = len(positions)
    q = rng.standard_normal((tokens, heads, head_dim)).astype(np.float32)
    k, v = rng.standard_normal((2, tokens, kv_heads, head_dim)).astype(np.float32)
    table = rope.rope_tables(tuple(10000.0 ** (-2 * i / head_dim) for i in range(head_dim // 2)), 272)
    grown = rope.query_tables(table, 0.1, 16)
    assert (grown[:16] == table[:16]).all() and abs(grown[40, 0, 0] / table[40, 0, 0] - 1.0 - 0.1 * np.log(3.0)) < 1e-6
    rotated_q, rotated_k = q.copy(), k.copy()
    kept = KeysAndValues(Heads(heads, kv_heads, head_dim), places, kind)
    memory = [[aligned(64 + kept.nbytes) for _ in range(pages)] for pages in (1, 2)]
    tables = [np.array([address(page) for page in pages], np.int64) for pages in memory]
    pages = np.array([address(tables[row % 2]) for row in range(tokens)], np.int64)
    count = np.array([tokens], np.int64)
    call(
        BODY.kernel(f"rope:{kind}"),
        rope.Args(
            q=address(rotated_q),
            q_stride=q.strides[0],
            k=address(rotated_k),
            v=address(v),
            kv_stride=v.strides[0],
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            tables=address(table),
            query_tables=address(grown),
            half=head_dim // 2,
            interleaved=int(interleaved),
            keys=64,
            values=64 + kept.key_bytes,
            places=places,
            pages=address(pages),
            positions=address(positions),
            tokens=address(count),
        ),
        threads=2,
    )
    here, element = table[positions], np.float16 if kind == "f16" else np.float32
    np.testing.assert_allclose(rotated_q, rope.reference(q, grown[positions], interleaved), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rotated_k, rope.reference(k, here, interleaved), rtol=1e-6, atol=1e-6)
    for row, position in enumerate(positions):
        page, place = memory[row % 2][position // 256][64:], position % 256
        keys = page[: kept.key_bytes].view(element).reshape(kv_heads, places // 16, head_dim, 16)
        np.testing.assert_array_equal(keys[:, place // 16, :, place % 16], rotated_k[row].astype(element))
        values = page[kept.key_bytes :].view(element).reshape(kv_heads, -1, places, 16)[:, :, place]
        np.testing.assert_array_equal(values.reshape(kv_heads, -1)[:, :head_dim], v[row].astype(element))
    written = sum(int(np.count_nonzero(page)) for pages in memory for page in pages)
    assert written <= tokens * 2 * kv_heads * head_dim * element().nbytes, "nothing beside these"


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_embedding_is_the_decoded_row(name):
    rng = np.random.default_rng(2)
    panels = random_panels(rng, name, 37, 288)
    weights = aligned(panels.nbytes)
    weights[:] = panels.reshape(-1).view(np.uint8)
    ids, count = np.array([0, 36, 17, 37, 16], np.int64), np.array([5], np.int64)  # 37 is beyond the last row
    out = np.zeros((16, 288), np.float32)
    call(
        BODY.kernel(f"embedding:{name}"),
        embedding.Args(address(weights), 288, address(ids), address(out), out.strides[0], address(count), 37),
        threads=2,
    )
    expected = embedding.reference(decode(panels.reshape(-1), 37, 288, name), ids)
    np.testing.assert_allclose(out[:5], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 3])
def test_given_rows_match_twin(threads):
    rng = np.random.default_rng(3)
    x, own = (rng.standard_normal((7, 37)).astype(np.float32) for _ in range(2))
    given = [row if i in (0, 3, 4, 6) else None for i, row in enumerate(own)]
    table, count = np.array([address(row) for row in given], np.int64), np.array([7], np.int64)
    held = rows(x)
    args = given_rows.Args(address(table), 37, address(held), held.strides[0], address(count))
    call(BODY.kernel("given_rows"), args, threads)
    np.testing.assert_array_equal(held[:7, :37], given_rows.reference(x, given))
    assert not held[:, 37:].any()
    assert not held[7:].any()
