"""The kernels of latent attention, but for attention itself, against their NumPy twins."""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call, random_panels

from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.graph.aligned import aligned, aligned_copy, bits, round_up
from edgeq.graph.control import new_control, turn_counters
from edgeq.graph.pages import KeysAndValues
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.ops import Heads, head_linear, latents, pack_heads
from edgeq.ops.rope import rope_tables

BODY = next(body for body in BODIES if body.native)


def multiplied(name, panels, rows, columns, x, room, threads):
    """Rows [tokens, heads, room] of x [tokens, heads, step], by the kernels; what they do not write is -7."""
    (tokens, heads, step), capacity = x.shape, round_up(len(x), 16)
    source = np.zeros((capacity, heads, step), np.float32)
    source[:tokens] = x
    weights, count = aligned_copy(panels.reshape(-1).view(np.uint8)), np.array([tokens], np.int64)
    words, words_step, beside, sums_step = address(source), 4 * step, source.strides[0], 0
    if block_type(name).quantized:
        words_step, sums_step = capacity * columns, capacity * columns // 32 * SUMS_BYTES
        packed, sums = aligned(heads * words_step), aligned(heads * sums_step)
        packed[:], sums[:] = 0x5A, 0xFF  # what no kernel may use
        words, beside = address(packed), address(sums)
        args = pack_heads.Args(
            address(source),
            source.strides[0],
            4 * step,
            heads,
            columns,
            words,
            beside,
            words_step,
            sums_step,
            address(count),
        )
        call(BODY.kernel("pack_heads"), args, threads=threads)
    out = np.full((capacity, heads, room), -7, np.float32)
    args = head_linear.Args(
        weights=address(weights),
        rows=rows,
        columns=columns,
        matrix_bytes=weights.nbytes // heads,
        heads=heads,
        words=words,
        sums=beside,
        words_step=words_step,
        sums_step=sums_step,
        out=address(out),
        out_stride=out.strides[0],
        out_step=4 * room,
        tokens=address(count),
    )
    control = new_control(threads)
    counted = dict(zip(("counters", "barriers"), turn_counters(control), strict=True))
    call(BODY.kernel(f"head_linear:{name}"), args._replace(**counted), threads=threads)
    return out[:tokens].copy()


@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("tokens", [1, 3, 37])
def test_a_matrix_for_each_head(name, tokens):
    """Parts of rows are read, and written with room behind them; threads and the number of tokens change no bit."""
    heads, rows, columns, step, room = 3, 48, 64, 80, 56
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((tokens, heads, step)).astype(np.float32)
    panels = random_panels(rng, name, heads * rows, columns)
    out = multiplied(name, panels, rows, columns, x, room, threads=3)
    weights = decode(panels.reshape(-1).view(np.uint8), heads * rows, columns, name).reshape(heads, rows, columns)
    expected = head_linear.reference(weights, name, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(out[:, :, :rows], expected, rtol=1e-4, atol=2e-5 * scale)
    assert (out[:, :, rows:] == -7).all()
    alone = multiplied(name, panels, rows, columns, x[-1:], room, threads=1)
    np.testing.assert_array_equal(alone, out[-1:])


@pytest.mark.parametrize("kind", ["f16", "f32"])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_kept_of_a_token(kind, interleaved, threads):
    tokens, heads, latent, turned, own, places = 7, 3, 48, 8, 20, 32
    rng = np.random.default_rng(5)
    source = rng.standard_normal((tokens, heads, own + turned)).astype(np.float32)
    kept = rng.standard_normal((tokens, latent + turned)).astype(np.float32)
    weight = rng.standard_normal(latent).astype(np.float32)
    q = np.full((tokens, heads, latent + turned), -7, np.float32)
    table = rope_tables(tuple(0.5**i for i in range(turned // 2)), places)
    positions, count = np.arange(9, 9 + tokens), np.array([tokens], np.int64)
    shape = Heads(heads, 1, latent + turned, latent=latent)
    page = aligned(KeysAndValues(shape, places, kind).nbytes)
    pages = np.full(tokens, address(page_table := np.array([address(page)], np.int64)))
    rows = kept.copy()
    args = latents.Args(
        q=address(q),
        q_stride=q.strides[0],
        source=address(source),
        source_stride=source.strides[0],
        source_dim=own + turned,
        latents=address(rows),
        latents_stride=rows.strides[0],
        heads=heads,
        head_dim=latent + turned,
        latent=latent,
        weight=address(weight),
        eps=bits(1e-3),
        tables=address(table),
        half=turned // 2,
        interleaved=int(interleaved),
        keys=0,
        places=places,
        pages=address(pages),
        positions=address(positions),
        tokens=address(count),
    )
    call(BODY.kernel(f"latents:{kind}"), args, threads=threads)
    assert len(page_table) == 1
    parts, keys = latents.reference(source, kept, weight, 1e-3, table[positions], interleaved)
    np.testing.assert_allclose(q[:, :, latent:], parts, rtol=1e-5, atol=1e-6)
    assert (q[:, :, :latent] == -7).all()
    element = np.float16 if kind == "f16" else np.float32
    found = page.view(element).reshape(places // 16, latent + turned, 16).transpose(0, 2, 1).reshape(places, -1)
    tolerance = 1e-3 if kind == "f16" else 1e-5
    np.testing.assert_allclose(found[positions], keys, rtol=tolerance, atol=tolerance)
    assert not found[: positions[0]].any()


def test_a_latent_cache_is_small():
    """Of DeepSeek-V2-Lite's 16 heads, keys of 192 values and values of 128, a latent of 512 and a rotated part of 64
    stay: 1152 bytes per token and layer, not 10240."""
    heads = Heads(16, 1, 512 + 64, latent=512)
    assert KeysAndValues(heads, 256, "f16").position_bytes == 1152
