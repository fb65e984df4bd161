"""Attention against its NumPy twin."""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call

from edgeq.kernels import attention
from edgeq.kernels.layout import heads_per_tile
from edgeq.runtime.memory import round_up

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


@pytest.mark.parametrize("kind", ["f16", "f32"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window"),
    [(8, 4, 8, 0), (4, 4, 16, 0), (6, 2, 64, 0), (14, 2, 64, 0), (8, 1, 48, 10), (5, 1, 32, 0)],
)
def test_attention_matches_twin(kind, heads, kv_heads, head_dim, window):
    rng = np.random.default_rng(heads)
    tokens, start, context, threads = 4, 30, 64, 3
    element = np.float16 if kind == "f16" else np.float32
    q = rng.standard_normal((tokens, heads, head_dim)).astype(np.float32)
    k, v = rng.standard_normal((2, start + tokens, kv_heads, head_dim)).astype(element).astype(np.float32)
    keys, values = cached(k, context, element, True), cached(v, context, element, False)
    tile = heads_per_tile(heads, kv_heads)
    scores = np.zeros((threads, tile, context), np.float32)
    out = np.zeros((tokens, heads, head_dim), np.float32)
    count, position = np.array([tokens], np.int64), np.array([start], np.int64)
    call(
        BODY.kernel(f"attention:{tile}-{kind}"),
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
        address(scores),
        address(count),
        address(position),
        threads=threads,
    )
    np.testing.assert_allclose(out, attention.reference(q, k, v, start, window), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tile"), [(8, 8, 1), (8, 4, 2), (9, 3, 3), (32, 4, 4), (14, 2, 4), (10, 2, 3)]
)
def test_heads_per_tile(heads, kv_heads, tile):
    assert heads_per_tile(heads, kv_heads) == tile
