"""Attention against its NumPy twin."""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call

from edgeq.graph.aligned import aligned, bits, round_up
from edgeq.graph.control import new_control, turn_counters
from edgeq.graph.pages import KeysAndValues, page_places
from edgeq.kernels.layout import (
    ATTENTION_BLOCK,
    ATTENTION_ROWS,
    RUN_WORDS,
    SPLIT_RUNS,
    attention_places,
    heads_per_tile,
)
from edgeq.ops import Heads, attention, pack, relative_positions, rope
from edgeq.ops.distances import by_distance
from edgeq.ops.relative_positions import places

BODY = next(body for body in BODIES if body.native)


class Text:
    """A sequence's keys and values [positions, kv heads, head_dim] in pages, whose other places hold `stale` numbers,
    as memory may that was used before. Pages before the first one that is `seen` are not there. `v` of None: keys begin
    with their values."""

    def __init__(
        self, k: np.ndarray, v: np.ndarray | None, kind: str, places: int, seen: int = 0, stale: float = np.inf
    ):
        positions, kv_heads, head_dim = k.shape
        element = np.float16 if kind == "f16" else np.float32
        self.pages: list[np.ndarray | None] = []
        for first in range(0, positions, ATTENTION_BLOCK):
            here = slice(max(first, seen), first + places)
            kept = [
                np.full((kv_heads, places, width), stale, np.float32) for width in (head_dim, round_up(head_dim, 16))
            ]
            for whole, x in zip(kept, (k, k if v is None else v), strict=True):
                part = x[here].transpose(1, 0, 2)
                whole[:, here.start - first :][:, : part.shape[1], :head_dim] = part
            keys = kept[0].reshape(kv_heads, places // 16, 16, head_dim).transpose(0, 1, 3, 2)
            values = kept[1].reshape(kv_heads, places, -1, 16).transpose(0, 2, 1, 3)
            both = (keys,) if v is None else (keys, values)
            parts = [np.ascontiguousarray(part.astype(element)).reshape(-1).view(np.uint8) for part in both]
            self.pages.append(np.concatenate(parts) if here.start < here.stop else None)
        self.table = np.array([address(page) for page in self.pages], np.int64)


def run(
    q,
    k,
    v,
    start,
    window,
    kind,
    threads,
    context,
    packed=False,
    cap=0.0,
    sinks=None,
    causal=True,
    latent=0,
    slopes=None,
    apart=None,
    relative=None,
    reach=None,
    chunked=False,
):
    """The kernel's rows, and its packed activations, of one sequence."""
    text = Text(k, None if latent else v, kind, page_places(context))
    kinds = {"softcap": cap, "causal": causal, "latent": latent, "chunked": chunked}
    heads = Heads(q.shape[1], k.shape[1], q.shape[2], window or None, **kinds)
    more = packed, sinks, slopes, apart, relative, reach
    return attend(q, [text.table], [(len(q), start)], heads, kind, threads, context, *more)


def attend(
    q,
    tables,
    runs,
    shape,
    kind,
    threads,
    context,
    packed=False,
    sinks=None,
    slopes=None,
    apart=None,
    relative=None,
    reach=None,
):
    """The kernel's rows [tokens, heads, value_dim], packed words and sums. `runs` are rows and the first position of
    each, one after the other in q, `tables` those of their sequences."""
    tokens, heads, kv_heads, head_dim = len(q), *q.shape[1:2], shape.num_key_value_heads, shape.head_dim
    group, value_dim = heads // kv_heads, shape.value_dim
    tile = BODY.isa.tile if shape.latent else heads_per_tile(heads, kv_heads, BODY.isa.tile)
    rows = round_up(max(group, ATTENTION_ROWS), BODY.isa.tile)
    per_thread = attention_places(0, rows, head_dim)[-1]
    scratch = aligned(threads * per_thread)
    per_run = kv_heads * -(-context // ATTENTION_BLOCK) * round_up(group, tile) * 4 * (round_up(head_dim, 16) + 2)
    partials, counters = aligned(SPLIT_RUNS * per_run), aligned(SPLIT_RUNS * 8 * kv_heads)
    entries, firsts = np.zeros((len(runs), RUN_WORDS), np.int64), np.cumsum([0, *(count for count, _ in runs)])
    for number, (count, start) in enumerate(runs):
        part = number if count == 1 and len(runs) <= SPLIT_RUNS else -1
        entries[number] = firsts[number], count, start, part
    pages = np.repeat([address(table) for table in tables], [count for count, _ in runs])
    counts = np.array([tokens, len(runs)], np.int64)
    kept = KeysAndValues(shape, page_places(context), kind)
    out = np.zeros((tokens, heads, value_dim), np.float32)
    words, sums = (aligned(round_up(tokens, 16) * heads * value_dim) for _ in range(2))
    of_query, of_key, where = relative or (None, None, None)
    args = attention.Args(
        q=address(q),
        q_stride=q.strides[0],
        out=address(out),
        out_stride=out.strides[0],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        keys=0,
        values=kept.key_bytes,
        places=page_places(context),
        pages=address(pages),
        scale=bits(1 / np.sqrt(head_dim)),
        window=shape.sliding_window or 0,
        scratch=address(scratch),
        scratch_bytes=per_thread,
        tokens=address(counts),
        runs=address(entries),
        run_count=address(counts[1:]),
        words=address(words) if packed else 0,
        sums=address(sums) if packed else 0,
        partials=address(partials),
        partials_bytes=per_run,
        part_counters=address(counters),
        softcap=bits(shape.softcap),
        sinks=address(sinks),
        slopes=address(slopes),
        distances=address(apart) + apart.strides[0] // 2 if apart is not None else 0,
        distances_stride=apart.strides[0] if apart is not None else 0,
        of_query=address(of_query),
        of_query_stride=of_query.strides[0] if relative else 0,
        of_key=address(of_key),
        of_key_stride=of_key.strides[0] if relative else 0,
        relative=of_query.strides[1] if relative else 0,
        relative_places=address(where) + where.nbytes // 2 if relative else 0,
        sees_all=int(not shape.causal),
        reach=address(reach),
        chunked=int(shape.chunked),
    )
    kernel = BODY.kernel(f"attention:{attention.LATENT if shape.latent else tile}-{kind}")
    control = new_control(threads)
    counted = dict(zip(("counters", "barriers"), turn_counters(control), strict=True))
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
@pytest.mark.parametrize("window", [0, 1, 12, 290])
def test_without_causality_each_token_sees_what_follows(heads, kv_heads, head_dim, tokens, start, window):
    q, k, v = random_case(tokens, start, heads, kv_heads, head_dim, "f16")
    results = [
        run(q, k, v, start, window, "f16", threads=threads, context=round_up(start + tokens, 16), causal=False)[0]
        for threads in (1, 3)
    ]
    expected = attention.reference(q, k, v, start, window, causal=False)
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(12, 12, 32), (8, 2, 24)])
@pytest.mark.parametrize("window", [0, 12, 290])
@pytest.mark.parametrize("start", [0, 240, 700])
def test_rows_of_an_image_see_one_another(heads, kv_heads, head_dim, window, start):
    """Further ones too, across pages; those before it as far as the window goes back from each."""
    q, k, v = random_case(340, start, heads, kv_heads, head_dim, "f16")
    reach = start + 1 + np.arange(340)
    reach[5:9], reach[9:300] = start + 9, start + 300
    results = [
        run(q, k, v, start, window, "f16", threads, context=round_up(start + 340, 16), reach=reach)[0]
        for threads in (1, 3)
    ]
    expected = attention.reference(q, k, v, start, window, reach=reach)
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(*results)
    causal = attention.reference(q, k, v, start, window)
    assert (np.abs(expected - causal).max(axis=(1, 2)) > 1e-3).nonzero()[0].tolist() == [*range(5, 8), *range(9, 299)]


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


@pytest.mark.parametrize(("window", "causal"), [(0, True), (10, True), (0, False), (12, False)])
@pytest.mark.parametrize(("tokens", "start"), [(4, 30), (1, 300), (37, 500)])
def test_scores_fall_with_distance(window, causal, tokens, start):
    q, k, v = random_case(tokens, start, 6, 2, 24, "f16")
    slopes = np.array([0.5, 0.25, 1 / 256, 0.0, 2.0, 0.0625], np.float32)
    more = {"causal": causal, "slopes": slopes}
    out, _, _ = run(q, k, v, start, window, "f16", threads=3, context=round_up(start + tokens, 16), **more)
    expected = attention.reference(q, k, v, start, window, **more)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=2e-6)
    plain = np.abs(expected - attention.reference(q, k, v, start, window, causal=causal)).max(axis=(0, 2))
    assert (plain[[0, 1, 4, 5]] > 0.02).all() and plain[3] == 0.0


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "window"), [(12, 12, 32, 0), (4, 2, 24, 12)])
@pytest.mark.parametrize(
    ("tokens", "start", "causal"), [(1, 0, False), (37, 0, False), (300, 0, False), (9, 500, True)]
)
def test_scores_differ_by_distance(heads, kv_heads, head_dim, window, tokens, start, causal):
    q, k, v = random_case(tokens, start, heads, kv_heads, head_dim, "f16")
    context = round_up(start + tokens, 16)
    apart = by_distance(np.random.default_rng(1).normal(0, 2, 32 * heads).astype(np.float32), heads, context)
    scaled = apart * np.float32(np.log2(np.e))
    results = [
        run(q, k, v, start, window, "f16", threads, context, causal=causal, apart=scaled)[0] for threads in (1, 3)
    ]
    expected = attention.reference(q, k, v, start, window, causal=causal, distances=apart)
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(*results)
    assert tokens == 1 or np.abs(expected - attention.reference(q, k, v, start, window, causal=causal)).max() > 0.1


def random_positions(tokens, heads, buckets, farthest, context):
    """What queries and keys have for relative positions, f32 [tokens, heads, positions], and bytes into a head's."""
    rng = np.random.default_rng(buckets)
    of_query, of_key = rng.normal(0, 4, (2, tokens, heads, 2 * buckets)).astype(np.float32)
    return of_query, of_key, 4 * places(np.arange(-context, context), buckets, farthest)


@pytest.mark.parametrize(
    ("heads", "head_dim", "buckets", "farthest"), [(12, 32, 16, 70), (3, 24, 24, 0), (5, 40, 256, 512)]
)
@pytest.mark.parametrize("tokens", [1, 2, 37, 300])
def test_queries_and_keys_see_relative_positions(heads, head_dim, buckets, farthest, tokens):
    """As the twin, the same bits on any number of threads, and beside another text."""
    context = round_up(tokens, 16)
    q, k, v = random_case(tokens, 0, heads, heads, head_dim, "f16")
    of_query, of_key, where = relative = random_positions(tokens, heads, buckets, farthest, context)
    out, _, _ = run(q, k, v, 0, 0, "f16", 1, context, causal=False, relative=relative)
    added = relative_positions.reference(of_query, of_key, where // 4)
    expected = attention.reference(q, k, v, 0, causal=False, relative=added)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=4e-6)
    for part in (np.zeros_like(of_query), of_key), (of_query, np.zeros_like(of_key)):
        less = attention.reference(q, k, v, 0, causal=False, relative=relative_positions.reference(*part, where // 4))
        assert tokens == 1 or np.abs(expected - less).max() > 0.1
    twice, text = (
        [np.concatenate([part[:9], part]) for part in (q, of_query, of_key)],
        Text(k, v, "f16", page_places(context)),
    )
    first = Text(k[:9], v[:9], "f16", page_places(context))
    runs, shape = [(min(tokens, 9), 0), (tokens, 0)], Heads(heads, heads, head_dim, causal=False)
    beside, _, _ = attend(
        twice[0], [first.table, text.table], runs, shape, "f16", 3, context, relative=(*twice[1:], where)
    )
    np.testing.assert_array_equal(beside[min(tokens, 9) :].view(np.uint32), out.view(np.uint32))


def test_buckets_of_relative_positions():
    """As transformers' make_log_bucket_position gives them, with the buckets that DeBERTa's third version has."""
    apart = np.array([-600, -511, -510, -400, -130, -129, -128, -127, -1, 0, 1, 127, 128, 129, 200, 511, 512])
    found = [511, 511, 511, 489, 386, 385, 384, 383, 257, 256, 255, 129, 128, 127, 87, 1, 0]
    assert places(apart, 256, 512).tolist() == found
    assert places(np.array([-9, -8, -1, 0, 1, 7, 8, 9]), 8, 0).tolist() == [15, 15, 9, 8, 7, 1, 0, 0]


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "window"), SHAPES)
def test_same_bits_however_it_is_split(heads, kv_heads, head_dim, window):
    """A prompt at once, and its last token alone, on 1 and 5 threads."""
    q, k, v = random_case(21, 600, heads, kv_heads, head_dim, "f16")
    slopes = np.exp2(-np.arange(heads, dtype=np.float32)) if heads == 6 else None
    together, _, _ = run(q, k, v, 600, window, "f16", 1, 1024, slopes=slopes)
    for tokens, threads in [(1, 1), (1, 5), (9, 2)]:
        parts, _, _ = run(q[-tokens:], k, v, 621 - tokens, window, "f16", threads, 1024, slopes=slopes)
        np.testing.assert_array_equal(parts.view(np.uint32), together[-tokens:].view(np.uint32))


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(8, 4, 8), (6, 2, 64), (5, 1, 40)])
@pytest.mark.parametrize("chunk", [1, 12, 256, 300])
def test_chunks(heads, kv_heads, head_dim, chunk):
    """Each token sees its own, of which a pass may have several; the same bits however that is split."""
    q, k, v = random_case(321, 300, heads, kv_heads, head_dim, "f16")
    together, _, _ = run(q, k, v, 300, chunk, "f16", 1, 1024, chunked=True)
    expected = attention.reference(q, k, v, 300, chunk, chunked=True)
    np.testing.assert_allclose(together, expected, rtol=1e-4, atol=2e-6)
    assert chunk == 1 or np.abs(expected - attention.reference(q, k, v, 300, chunk)).max() > 0.1
    for tokens, threads in [(1, 1), (1, 5), (9, 2), (22, 3)]:
        parts, _, _ = run(q[-tokens:], k, v, 621 - tokens, chunk, "f16", threads, 1024, chunked=True)
        np.testing.assert_array_equal(parts.view(np.uint32), together[-tokens:].view(np.uint32))


LATENTS = [(16, 48, 32), (5, 40, 16), (20, 80, 64), (70, 24, 16)]  # heads, head_dim, and how much of it is the value


@pytest.mark.parametrize(
    ("heads", "head_dim", "latent", "kind"), [(*s, "f16") for s in LATENTS] + [(16, 48, 32, "f32")]
)
@pytest.mark.parametrize(("tokens", "start"), [(4, 30), (1, 0), (1, 255), (1, 700), (37, 500)])
def test_keys_that_begin_with_their_values(heads, head_dim, latent, kind, tokens, start):
    """As the twin, whatever lies around what is seen; the same bits on any number of threads, and of the last token
    alone."""
    q, k, _ = random_case(tokens, start, heads, 1, head_dim, kind)
    context = round_up(start + tokens, 16)
    out, words, sums = run(q, k, None, start, 0, kind, 3, context, packed=latent % 32 == 0, latent=latent)
    expected = attention.reference(q, k, k[:, :, :latent], start)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=2e-6)
    if latent % 32 == 0:
        check_packed(out, words, sums)
    for last, threads in ((tokens, 1), (1, 2)):
        alone, _, _ = run(q[-last:], k, None, start + tokens - last, 0, kind, threads, context, latent=latent)
        np.testing.assert_array_equal(alone.view(np.uint32), out[-last:].view(np.uint32))


def test_latents_of_a_window():
    q, k, _ = random_case(9, 600, 8, 1, 48, "f16")
    out, _, _ = run(q, k, None, 600, 300, "f16", 2, 624, latent=32)
    np.testing.assert_allclose(out, attention.reference(q, k, k[:, :, :32], 600, 300), rtol=1e-4, atol=2e-6)


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
    layout = KeysAndValues(heads_kept, context, kind)
    page = aligned(layout.nbytes)
    page_table = np.array([address(page)], np.int64)
    table = np.zeros((context, 2, head_dim // 2), np.float32)
    table[:, 0] = 1
    count, positions = np.array([tokens], np.int64), np.arange(tokens)
    pages = np.full(tokens, address(page_table))
    shape = [heads, kv_heads, head_dim]
    sizes = [head_dim // 2, 0, 0, layout.key_bytes, context, address(pages), address(positions), address(count)]
    sources = [address(q), q.strides[0], address(k), address(v), k.strides[0]]
    call(BODY.kernel(f"rope:{kind}"), rope.Args(*sources, *shape, address(table), address(table), *sizes), threads=2)

    (key_codes, key_scales, keys), (value_codes, value_scales, values) = as_q8_0(k), as_q8_0(v)
    panels = page[: layout.key_bytes].reshape(kv_heads, context // 16, -1)
    kept = panels[:, :, : head_dim * 16].view(np.int8).reshape(kv_heads, context // 16, head_dim, 16)
    kept = kept.transpose(1, 3, 0, 2).reshape(context, kv_heads, head_dim)[:tokens]
    np.testing.assert_array_equal(kept, key_codes)
    scales = (
        np.ascontiguousarray(panels[:, :, head_dim * 16 :]).view(np.float16).reshape(kv_heads, context // 16, -1, 16)
    )
    np.testing.assert_array_equal(scales.transpose(1, 3, 0, 2).reshape(context, kv_heads, -1)[:tokens], key_scales)
    columns = page[layout.key_bytes :].reshape(kv_heads, -1)
    kept = columns[:, : head_dim * context].view(np.int8).reshape(kv_heads, head_dim // 16, context, 16)
    np.testing.assert_array_equal(kept.transpose(2, 0, 1, 3).reshape(context, kv_heads, -1)[:tokens], value_codes)
    scales = np.ascontiguousarray(columns[:, head_dim * context :]).view(np.float16).reshape(kv_heads, -1, context)
    np.testing.assert_array_equal(scales.transpose(2, 0, 1)[:tokens], value_scales)

    for n in (1, 13):  # the last tokens
        out = attend(q[-n:], [page_table], [(n, tokens - n)], heads_kept, kind, 2, context)[0]
        np.testing.assert_allclose(out, attention.reference(q[-n:], keys, values, tokens - n), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("tokens", [1, 6])
def test_packs_its_rows_as_quantize_does(tokens):
    q, k, v = random_case(tokens, 40, 6, 2, 64, "f16")
    out, words, sums = run(q, k, v, 40, 0, "f16", 2, 64, packed=True)
    check_packed(out, words, sums)


@pytest.mark.parametrize("kind", ["f16", "f32"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window"), [(8, 1, 48, 10), (4, 1, 256, 300), (6, 2, 24, 100), (4, 2, 16, 256)]
)
@pytest.mark.parametrize(("tokens", "start"), [(1, 700), (1, 1535), (37, 500), (100, 1500), (1, 20)])
def test_pages_that_the_window_sees(kind, heads, kv_heads, head_dim, window, tokens, start):
    """The bits of a cache that holds all positions, where earlier pages are gone, whatever is around what is seen."""
    q, k, v = random_case(tokens, start, heads, kv_heads, head_dim, kind)
    context = round_up(start + tokens, 16)
    whole, _, _ = run(q, k, v, start, window, kind, 3, context)
    shape = Heads(heads, kv_heads, head_dim, window)
    for stale in (np.inf, np.nan):
        text = Text(k, v, kind, page_places(context), max(0, start + 1 - window), stale)
        assert (text.pages[0] is None) == (start - window >= ATTENTION_BLOCK - 1)
        for threads in (1, 3):
            out, _, _ = attend(q, [text.table], [(tokens, start)], shape, kind, threads, context)
            np.testing.assert_array_equal(out.view(np.uint32), whole.view(np.uint32))


RUNS = [
    [(1, 700), (1, 3)],
    [(1, 255), (1, 256), (1, 600), (1, 0)],
    [(1, 511), (9, 250), (1, 20), (33, 0), (1, 700), (2, 80)],
]


@pytest.mark.parametrize("kind", ["f16", "f32"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window"), [(8, 4, 24, 0), (6, 2, 64, 0), (4, 1, 48, 300), (5, 1, 32, 0)]
)
@pytest.mark.parametrize("runs", RUNS, ids=len)
def test_runs_of_several_sequences(kind, heads, kv_heads, head_dim, window, runs):
    """Each has the bits that it has alone, on any number of threads; packed, the places that its rows have."""
    shape, context = Heads(heads, kv_heads, head_dim, window or None), 768
    cases = [random_case(count, start, heads, kv_heads, head_dim, kind) for count, start in runs]
    alone = [
        run(q + np.float32(i), k, v, start, window, kind, 2, context)[0]
        for i, ((q, k, v), (_, start)) in enumerate(zip(cases, runs, strict=True))
    ]
    texts = [Text(k, v, kind, page_places(context)) for _, k, v in cases]
    together = np.concatenate([q + np.float32(i) for i, (q, _, _) in enumerate(cases)])
    packed = head_dim % 32 == 0
    for threads in (1, 2, 5):
        tables = [text.table for text in texts]
        out, words, sums = attend(together, tables, runs, shape, kind, threads, context, packed)
        np.testing.assert_array_equal(out.view(np.uint32), np.concatenate(alone).view(np.uint32))
        if packed:
            check_packed(out, words, sums)


def check_packed(out, words, sums):
    """Words and sums are what `pack` makes of the rows."""
    wanted_words, wanted_sums, count = np.zeros_like(words), np.zeros_like(sums), np.array([len(out)], np.int64)
    args = [address(out), out.strides[0], out[0].size, address(wanted_words), address(wanted_sums), address(count)]
    call(BODY.kernel("pack"), pack.Args(*args))
    np.testing.assert_array_equal(words, wanted_words)
    np.testing.assert_array_equal(sums, wanted_sums)


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
