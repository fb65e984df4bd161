"""Attention against its NumPy twin."""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call

from edgeq.graph.aligned import aligned, round_up
from edgeq.graph.control import new_control, turn_counters
from edgeq.graph.kv_cache import KVCache
from edgeq.kernels.layout import ATTENTION_BLOCK, ATTENTION_ROWS, attention_places, heads_per_tile
from edgeq.ops import Heads, attention, pack, rope

BODY = next(body for body in BODIES if body.native)


def cached(x: np.ndarray, context: int, element: type, keys: bool) -> np.ndarray:
    """[positions, kv heads, head_dim] in the cache's layout; what is beyond holds infinities, as stale memory may."""
    positions, kv_heads, head_dim = x.shape
    if keys:
        whole = np.full((kv_heads, context, head_dim), np.inf, np.float32)
        whole[:, :positions] = x.transpose(1, 0, 2)
        panels = whole.reshape(kv_heads, context // 16, 16, head_dim).transpose(0, 1, 3, 2)
    else:
        whole = np.full((kv_heads, context, round_up(head_dim, 16)), np.inf, np.float32)
        whole[:, :positions, :head_dim] = x.transpose(1, 0, 2)
        panels = whole.reshape(kv_heads, context, -1, 16).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(panels.astype(element))


def run(q, k, v, start, window, kind, threads, context, packed=False, cap=0.0, sinks=None, causal=True):
    """The kernel's rows, and its packed activations."""
    element = np.float16 if kind == "f16" else np.float32
    keys, values = cached(k, context, element, True), cached(v, context, element, False)
    heads = Heads(q.shape[1], k.shape[1], q.shape[2])
    return attend(q, keys, values, heads, start, window, kind, threads, context, packed, cap, sinks, causal)


def attend(
    q, keys, values, shape, start, window, kind, threads, context, packed=False, cap=0.0, sinks=None, causal=True
):
    tokens, heads, kv_heads, head_dim = (
        len(q),
        shape.num_attention_heads,
        shape.num_key_value_heads,
        shape.head_dim,
    )
    group, tile = heads // kv_heads, heads_per_tile(heads, kv_heads, BODY.isa.tile)
    rows = round_up(max(group, ATTENTION_ROWS), BODY.isa.tile)
    per_thread = attention_places(0, rows, head_dim)[-1]
    scratch = aligned(threads * per_thread)
    blocks = kv_heads * (context // ATTENTION_BLOCK + 1)
    partials, counters = aligned(blocks * round_up(group, tile) * 4 * (head_dim + 18)), aligned(8 * kv_heads)
    count, position = np.array([tokens], np.int64), np.array([start], np.int64)
    out = np.zeros((tokens, heads, head_dim), np.float32)
    words, sums = aligned(round_up(tokens, 16) * heads * head_dim), aligned(round_up(tokens, 16) * heads * head_dim)
    args = attention.Args(
        address(q),
        q.strides[0],
        address(out),
        out.strides[0],
        heads,
        kv_heads,
        head_dim,
        address(keys),
        address(values),
        context,
        int(np.float32(1 / np.sqrt(head_dim)).view(np.int32)),
        window,
        address(scratch),
        per_thread,
        address(count),
        address(position),
        address(words) if packed else 0,
        address(sums) if packed else 0,
        address(partials),
        address(counters),
        int(np.float32(cap).view(np.int32)),
        address(sinks),
        int(not causal),
    )
    kernel = BODY.kernel(f"attention:{tile}-{kind}")
    counted = dict(zip(("counters", "barriers"), turn_counters(new_control(threads)), strict=True))
    call(kernel, args._replace(**counted), threads=threads)
    first_took_all = [part.copy() for part in (out, words, sums)]
    call(kernel, args, threads=threads)
    for part, expected in zip(first_took_all, (out, words, sums), strict=True):
        assert np.array_equal(part, expected, equal_nan=True), "it does not matter who takes a turn"
    assert not counters.any()
    return out, words, sums


def random_case(tokens, start, heads, kv_heads, head_dim, kind):
    rng = np.random.default_rng(heads)
    element = np.float16 if kind == "f16" else np.float32
    q = rng.standard_normal((tokens, heads, head_dim)).astype(np.float32)
    k, v = rng.standard_normal((2, start + tokens, kv_heads, head_dim)).astype(element).astype(np.float32)
    return q, k, v


SHAPES = [
    (8, 4, 8, 0),
    (4, 4, 16, 0),
    (6, 2, 64, 0),
    (14, 2, 64, 0),
    (8, 1, 48, 10),
    (5, 1, 32, 0),
    (4, 1, 256, 300),
    (70, 1, 8, 0),
]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window", "kind"), [(*shape, "f16") for shape in SHAPES] + [(14, 2, 64, 0, "f32")]
)
@pytest.mark.parametrize(("tokens", "start"), [(4, 30), (1, 0), (1, 255), (1, 700), (37, 500)])
def test_attention_matches_twin(heads, kv_heads, head_dim, window, kind, tokens, start):
    q, k, v = random_case(tokens, start, heads, kv_heads, head_dim, kind)
    out, _, _ = run(q, k, v, start, window, kind, threads=3, context=round_up(start + tokens, 16))
    np.testing.assert_allclose(out, attention.reference(q, k, v, start, window), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(12, 12, 32), (8, 2, 24), (4, 4, 64), (5, 1, 40)])
@pytest.mark.parametrize(("tokens", "start"), [(1, 0), (2, 0), (37, 0), (256, 0), (300, 0), (19, 500)])
def test_without_causality_each_token_sees_all(heads, kv_heads, head_dim, tokens, start):
    q, k, v = random_case(tokens, start, heads, kv_heads, head_dim, "f16")
    results = [
        run(q, k, v, start, 0, "f16", threads=threads, context=round_up(start + tokens, 16), causal=False)[0]
        for threads in (1, 3)
    ]
    np.testing.assert_allclose(results[0], attention.reference(q, k, v, start, causal=False), rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("window", [0, 10])
@pytest.mark.parametrize(("tokens", "start"), [(4, 30), (1, 300)])
def test_scores_are_capped(window, tokens, start):
    q, k, v = random_case(tokens, start, 8, 2, 24, "f16")
    out, _, _ = run(q, k, v, start, window, "f16", threads=3, context=round_up(start + tokens, 16), cap=0.7)
    expected = attention.reference(q, k, v, start, window, 0.7)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=2e-6)
    assert np.abs(expected - attention.reference(q, k, v, start, window)).max() > 0.1


@pytest.mark.parametrize("window", [0, 10])
@pytest.mark.parametrize(("tokens", "start"), [(4, 30), (1, 300), (37, 500)])
def test_sinks_take_part_in_the_softmax(window, tokens, start):
    """One below all scores, which hardly counts, one far above them, which takes all, and some between."""
    q, k, v = random_case(tokens, start, 8, 2, 32, "f16")
    sinks = np.array([-90.0, 95.0, 0.0, 2.0, 4.0, -3.0, 6.0, 1.0], np.float32)
    out, _, _ = run(q, k, v, start, window, "f16", threads=3, context=round_up(start + tokens, 16), sinks=sinks)
    expected = attention.reference(q, k, v, start, window, sinks=sinks)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=2e-6)
    assert np.abs(expected[:, 1]).max() < 1e-30 and np.abs(expected[:, 3]).max() > 1e-3


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "window"), SHAPES)
def test_same_bits_however_it_is_split(heads, kv_heads, head_dim, window):
    """A prompt at once, and its last token alone, on 1 and 5 threads."""
    q, k, v = random_case(21, 600, heads, kv_heads, head_dim, "f16")
    together, _, _ = run(q, k, v, 600, window, "f16", 1, 1024)
    for tokens, threads in [(1, 1), (1, 5), (9, 2)]:
        parts, _, _ = run(q[-tokens:], k, v, 621 - tokens, window, "f16", threads, 1024)
        np.testing.assert_array_equal(parts.view(np.uint32), together[-tokens:].view(np.uint32))


def as_q8_0(x):
    """[..., head_dim] as GGUF's q8_0 makes of it: codes, f16 scales per 32 values, and what they stand for."""
    padded = np.zeros((*x.shape[:-1], round_up(x.shape[-1], 32)), np.float32)
    padded[..., : x.shape[-1]] = x
    groups = padded.reshape(*x.shape[:-1], -1, 32)
    scales = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)
    scaled = groups * (np.float32(1) / np.where(scales > 0, scales, 1))
    codes = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8)
    scales = scales.astype(np.float16)
    values = (codes * scales.astype(np.float32)).reshape(padded.shape)[..., : x.shape[-1]]
    return codes.reshape(padded.shape)[..., : x.shape[-1]], scales[..., 0], values


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(6, 2, 64), (3, 1, 48)])
def test_a_q8_0_cache(heads, kv_heads, head_dim):
    """Kept by the rope kernel (which here rotates by nothing), read by attention."""
    tokens, context, kind = 21, 48, "q8_0"
    q, k, v = random_case(tokens, 0, heads, kv_heads, head_dim, "f32")
    v[3] = 0
    heads_kept = Heads(heads, kv_heads, head_dim)
    cache = KVCache(heads_kept, context, tokens, kind)
    table = np.zeros((context, 2, head_dim // 2), np.float32)
    table[:, 0] = 1
    count, position = np.array([tokens], np.int64), np.array([0], np.int64)
    shape = [heads, kv_heads, head_dim]
    sizes = [head_dim // 2, 0, address(cache.keys), address(cache.values), context, address(count), address(position)]
    sources = [address(q), q.strides[0], address(k), address(v), k.strides[0]]
    call(BODY.kernel(f"rope:{kind}"), rope.Args(*sources, *shape, address(table), *sizes), threads=2)

    (key_codes, key_scales, keys), (value_codes, value_scales, values) = as_q8_0(k), as_q8_0(v)
    panels = cache.keys.reshape(kv_heads, context // 16, -1)
    kept = panels[:, :, : head_dim * 16].view(np.int8).reshape(kv_heads, context // 16, head_dim, 16)
    kept = kept.transpose(1, 3, 0, 2).reshape(context, kv_heads, head_dim)[:tokens]
    np.testing.assert_array_equal(kept, key_codes)
    scales = (
        np.ascontiguousarray(panels[:, :, head_dim * 16 :]).view(np.float16).reshape(kv_heads, context // 16, -1, 16)
    )
    np.testing.assert_array_equal(scales.transpose(1, 3, 0, 2).reshape(context, kv_heads, -1)[:tokens], key_scales)
    columns = cache.values.reshape(kv_heads, -1)
    kept = columns[:, : head_dim * context].view(np.int8).reshape(kv_heads, head_dim // 16, context, 16)
    np.testing.assert_array_equal(kept.transpose(2, 0, 1, 3).reshape(context, kv_heads, -1)[:tokens], value_codes)
    scales = np.ascontiguousarray(columns[:, head_dim * context :]).view(np.float16).reshape(kv_heads, -1, context)
    np.testing.assert_array_equal(scales.transpose(2, 0, 1)[:tokens], value_scales)

    for n in (1, 13):  # the last tokens
        out = attend(q[-n:], cache.keys, cache.values, heads_kept, tokens - n, 0, kind, 2, context)[0]
        np.testing.assert_allclose(out, attention.reference(q[-n:], keys, values, tokens - n), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("tokens", [1, 6])
def test_packs_its_rows_as_quantize_does(tokens):
    q, k, v = random_case(tokens, 40, 6, 2, 64, "f16")
    out, words, sums = run(q, k, v, 40, 0, "f16", 2, 64, packed=True)
    wanted_words, wanted_sums = np.zeros_like(words), np.zeros_like(sums)
    count = np.array([tokens], np.int64)
    args = [address(out), out.strides[0], 6 * 64, address(wanted_words), address(wanted_sums), address(count)]
    call(BODY.kernel("pack"), pack.Args(*args))
    np.testing.assert_array_equal(words, wanted_words)
    np.testing.assert_array_equal(sums, wanted_sums)


@pytest.mark.parametrize("kind", ["f16", "f32"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window"), [(8, 1, 48, 10), (4, 1, 256, 300), (6, 2, 24, 100), (4, 2, 16, 256)]
)
@pytest.mark.parametrize(("tokens", "start"), [(1, 700), (1, 1535), (37, 500), (100, 1500), (1, 20)])
def test_a_ring_of_what_the_window_sees(kind, heads, kv_heads, head_dim, window, tokens, start):
    """The bits of a cache that holds all positions, whatever is in the places around those that are seen."""
    q, k, v = random_case(tokens, start, heads, kv_heads, head_dim, kind)
    whole, _, _ = run(q, k, v, start, window, kind, 3, round_up(start + tokens, 16))
    ring = round_up(window - 1 + tokens, ATTENTION_BLOCK)
    seen = np.arange(max(0, start + 1 - window), start + tokens)
    for stale in (np.inf, np.nan):
        held = np.full((2, ring, kv_heads, head_dim), stale, np.float32)
        held[0, seen % ring], held[1, seen % ring] = k[seen], v[seen]
        element = np.float16 if kind == "f16" else np.float32
        keys, values = cached(held[0], ring, element, True), cached(held[1], ring, element, False)
        shape = Heads(heads, kv_heads, head_dim)
        for threads in (1, 3):
            out, _, _ = attend(q, keys, values, shape, start, window, kind, threads, ring)
            np.testing.assert_array_equal(out.view(np.uint32), whole.view(np.uint32))


def test_a_nan_is_not_hidden():
    q, k, v = random_case(2, 20, 4, 1, 16, "f32")
    k[3] = np.nan
    out, _, _ = run(q, k, v, 20, 0, "f32", 1, 32)
    assert np.isnan(out).all()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tile"), [(8, 8, 1), (8, 4, 2), (9, 3, 3), (32, 4, 4), (14, 2, 4), (10, 2, 3)]
)
def test_heads_per_tile(heads, kv_heads, tile):
    assert heads_per_tile(heads, kv_heads, 4) == tile
