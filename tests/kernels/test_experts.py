"""The kernels of mixtures of experts against their NumPy twins."""

import numpy as np
import pytest
from kernel_calls import BODIES, address, call, random_panels

from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.graph.aligned import aligned, round_up
from edgeq.graph.control import new_control, turn_counters
from edgeq.kernels.layout import SUMS_BYTES
from edgeq.ops import activation, expert_rows, experts, route, silu_mul

BODY = next(body for body in BODIES if body.native)


class Routed:
    """Tokens routed by the kernels: `chosen`, `weights`, `slots`, `sources` and `segments`."""

    def __init__(
        self,
        logits: np.ndarray,
        top_k: int,
        normalized: bool,
        threads: int = 1,
        factor: float = 1.0,
        bias: np.ndarray | None = None,
        sigmoid: bool = False,
        least: float = 0.0,
        groups: int = 1,
        top_groups: int = 1,
        scales: np.ndarray | None = None,
        spread: float = 0.0,
    ):
        tokens, self.experts = logits.shape
        padded = np.zeros((tokens, round_up(self.experts, 32)), np.float32)  # zeros beyond: they must not be chosen
        padded[:, : self.experts] = logits
        self.count, self.top_k, self.threads = np.array([tokens], np.int64), top_k, threads
        self.chosen = np.full((tokens, top_k), -1, np.int64)
        self.weights, self.slots = np.zeros((tokens, top_k), np.float32), np.full((tokens, top_k), -1, np.int64)
        self.capacity = round_up(tokens * top_k, 16) + 16 * min(self.experts, tokens * top_k)
        self.sources, self.table = np.full(self.capacity, -1, np.int64), np.zeros(1 + 3 * self.experts, np.int64)
        scratch = np.zeros(self.experts, np.int64)
        call(
            BODY.kernel("route:choose"),
            route.Choose(
                address(padded),
                padded.strides[0],
                self.experts,
                top_k,
                int(normalized),
                address(self.chosen),
                address(self.weights),
                address(self.count),
                int(np.float32(factor).view(np.int32)),
                0 if bias is None else address(bias),
                int(sigmoid),
                int(np.float32(least).view(np.int32)),
                groups,
                top_groups,
                0 if scales is None else address(scales),
                int(np.float32(spread).view(np.int32)),
            ),
            threads=threads,
        )
        call(
            BODY.kernel("route:group"),
            route.Group(
                self.experts,
                top_k,
                address(self.chosen),
                address(self.slots),
                address(self.sources),
                address(self.table),
                address(scratch),
                address(self.count),
            ),
            threads=threads,
        )
        self.segments = [tuple(s) for s in self.table[1 : 1 + 3 * self.table[0]].reshape(-1, 3).tolist()]


def random_logits(tokens: int, count: int) -> np.ndarray:
    logits = np.random.default_rng(tokens).standard_normal((tokens, count)).astype(np.float32) * 3 - 4
    logits[0, : count // 2] = logits[0, 0]  # ties
    return logits


@pytest.mark.parametrize(("tokens", "count", "top_k"), [(1, 8, 2), (5, 7, 4), (33, 20, 3), (9, 128, 8), (3, 4, 4)])
@pytest.mark.parametrize("normalized", [False, True])
def test_routing_matches_twin(tokens, count, top_k, normalized):
    logits = random_logits(tokens, count)
    routed = Routed(logits, top_k, normalized, threads=3, factor=0.7)
    chosen, weights = route.reference(logits, top_k, normalized, 0.7)
    np.testing.assert_array_equal(routed.chosen, chosen)
    np.testing.assert_allclose(routed.weights, weights, rtol=2e-6)


@pytest.mark.parametrize(("tokens", "count", "top_k"), [(1, 8, 2), (33, 20, 3), (9, 128, 8)])
@pytest.mark.parametrize("normalized", [False, True])
def test_a_bias_chooses_and_does_not_weigh(tokens, count, top_k, normalized):
    rng = np.random.default_rng(count)
    logits = rng.standard_normal((tokens, count)).astype(np.float32) * 3 - 4
    bias = rng.standard_normal(count).astype(np.float32) * np.float32(0.1)
    routed = Routed(logits, top_k, normalized, threads=3, factor=0.7, bias=bias)
    chosen, weights = route.reference(logits, top_k, normalized, 0.7, bias)
    np.testing.assert_array_equal(routed.chosen, chosen)
    np.testing.assert_allclose(routed.weights, weights, rtol=2e-6)
    assert tokens == 1 or (chosen != route.reference(logits, top_k, normalized, 0.7)[0]).any()


@pytest.mark.parametrize(("tokens", "count", "top_k"), [(1, 8, 2), (33, 20, 3), (9, 128, 8)])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(("sigmoid", "favoured"), [(True, True), (True, False), (False, True), (False, False)])
def test_scores_of_all_kinds(tokens, count, top_k, normalized, sigmoid, favoured):
    """Chosen among the best groups, weighted by sigmoids or the softmax, times each expert's own scale."""
    rng = np.random.default_rng(count + top_k)
    logits = rng.standard_normal((tokens, count)).astype(np.float32) * 2
    bias = rng.standard_normal(count).astype(np.float32) * np.float32(0.2) if favoured else None
    scales = rng.uniform(0.5, 2.0, count).astype(np.float32)
    kinds = {"sigmoid": sigmoid, "least": 0.1, "groups": 4, "top_groups": 2, "scales": scales}
    routed = Routed(logits, top_k, normalized, 3, 0.7, bias, **kinds)
    chosen, weights = route.reference(logits, top_k, normalized, 0.7, bias, **kinds)
    np.testing.assert_array_equal(routed.chosen, chosen)
    np.testing.assert_allclose(routed.weights, weights, rtol=4e-6)
    size = count // 4
    assert all(len({int(e) // size for e in row}) <= 2 for row in routed.chosen)
    anywhere = route.reference(logits, top_k, normalized, 0.7, bias, **kinds | {"groups": 1, "top_groups": 1})[0]
    assert tokens == 1 or (anywhere != chosen).any()


@pytest.mark.parametrize(("tokens", "count"), [(1, 8), (33, 20), (9, 128), (5, 2)])
@pytest.mark.parametrize("spread", [0.02, 0.8])
def test_weights_among_those_that_are_near(tokens, count, spread):
    """A token's first is weighted among those near it, its second among the others near that."""
    logits = random_logits(tokens, count)
    routed = Routed(logits, 2, False, threads=3, factor=0.7, spread=spread)
    chosen, weights = route.reference(logits, 2, False, 0.7, spread=spread)
    np.testing.assert_array_equal(routed.chosen, chosen)
    np.testing.assert_allclose(routed.weights, weights, rtol=2e-6)
    assert (np.abs(weights - route.reference(logits, 2, True, 0.7)[1]) > 1e-3).any()


@pytest.mark.parametrize(("tokens", "count", "top_k"), [(1, 8, 2), (33, 20, 3), (40, 2, 2)])
def test_tokens_of_an_expert_lie_side_by_side(tokens, count, top_k):
    routed = Routed(random_logits(tokens, count), top_k, True)
    assert [expert for expert, _, _ in routed.segments] == sorted({int(e) for e in routed.chosen.ravel()})
    end = 0
    for expert, first, n in routed.segments:
        assert first % 16 == 0 and first >= end
        end = first + n
        expected = np.flatnonzero((routed.chosen == expert).any(axis=1))
        np.testing.assert_array_equal(routed.sources[first:end] // top_k, expected)
        here = routed.slots[routed.chosen == expert]
        np.testing.assert_array_equal(np.sort(here), np.arange(first, end))
    assert round_up(end, 16) <= routed.capacity
    assert (routed.sources[routed.slots] == np.arange(tokens * top_k).reshape(tokens, top_k)).all()


def test_not_a_number_stays_within_the_experts():
    routed = Routed(np.full((2, 6), np.nan, np.float32), 2, True)
    assert ((routed.chosen >= 0) & (routed.chosen < 6)).all()


def test_combine_matches_twin():
    rng = np.random.default_rng(3)
    routed = Routed(random_logits(5, 7), 4, False)
    rows, out = rng.standard_normal((routed.capacity, 64)), rng.standard_normal((5, 64))
    rows, out = rows.astype(np.float32), out.astype(np.float32)
    found = out.copy()
    head = (address(found), found.strides[0], 50, address(rows), rows.strides[0], 4)
    tail = (address(routed.slots), address(routed.weights), address(routed.count), 0)
    call(BODY.kernel("expert_rows:combine"), expert_rows.Combine(*head, *tail), threads=2)
    expected = expert_rows.reference(rows, routed.slots, routed.weights, out)
    np.testing.assert_allclose(found[:, :50], expected[:, :50], rtol=1e-5, atol=1e-6)
    call(BODY.kernel("expert_rows:combine"), expert_rows.Combine(*head, *tail)._replace(fresh=1), threads=2)
    expected = expert_rows.reference(rows, routed.slots, routed.weights, np.zeros_like(out))
    np.testing.assert_allclose(found[:, :50], expected[:, :50], rtol=1e-5, atol=1e-6)
    call(BODY.kernel("expert_rows:combine"), expert_rows.Combine(*head, *tail)._replace(fresh=1, weights=0), threads=2)
    expected = expert_rows.reference(rows, routed.slots, np.ones_like(routed.weights), np.zeros_like(out))
    np.testing.assert_allclose(found[:, :50], expected[:, :50], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("tokens", "count", "top_k"), [(1, 8, 1), (33, 20, 3)])
def test_what_experts_are_given_may_be_weighted(tokens, count, top_k):
    routed = Routed(random_logits(tokens, count), top_k, False, sigmoid=True)
    x = np.random.default_rng(count).standard_normal((tokens, 96)).astype(np.float32)
    wide = np.zeros((routed.capacity, 96), np.float32)
    head = (address(x), x.strides[0], 96, address(wide), wide.strides[0], 0, 0, address(routed.table))
    tail = (address(routed.sources), top_k, address(routed.weights))
    call(BODY.kernel("expert_rows:gather"), expert_rows.Gather(*head, *tail), threads=3)
    expected = x[:, None] * routed.weights[:, :, None]
    np.testing.assert_array_equal(wide[routed.slots], expected)


@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize(("tokens", "count"), [(1, 6), (70, 3)])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_expert_multiplies_its_tokens(name, tokens, count, threads):
    """Gather, then the expert matrices, then SwiGLU's product of what they give with itself."""
    rng = np.random.default_rng(tokens)
    rows, columns = 40, 288
    panels = [random_panels(rng, name, rows, columns).reshape(-1).view(np.uint8) for _ in range(count)]
    weights = aligned(sum(p.nbytes for p in panels))
    weights[:] = np.concatenate(panels)
    routed = Routed(random_logits(tokens, count), 2, True)
    x = rng.standard_normal((tokens, columns)).astype(np.float32)
    capacity, quantized = routed.capacity, block_type(name).quantized
    wide, out = np.zeros((capacity, columns), np.float32), np.zeros((capacity, 64), np.float32)
    words, sums = aligned(capacity * columns), aligned(capacity * columns // 32 * SUMS_BYTES)
    packed = (address(words), address(sums)) if quantized else (0, 0)
    head = (address(x), x.strides[0], columns, address(wide), wide.strides[0], *packed)
    tail = (address(routed.table), address(routed.sources), 2, 0)
    call(BODY.kernel("expert_rows:gather"), expert_rows.Gather(*head, *tail), threads=threads)
    source = packed if quantized else (address(wide), wide.strides[0])
    head = (address(weights), rows, columns, *source, address(out), out.strides[0], panels[0].nbytes)
    biases = rng.standard_normal((count, 64)).astype(np.float32)
    tail = (address(routed.table), address(biases), biases.strides[0])
    call(BODY.kernel(f"experts:{name}"), experts.Args(*head, *tail, 0, 0), threads=threads)
    shared = out.copy()
    out[:] = 0
    control = new_control(threads)
    call(BODY.kernel(f"experts:{name}"), experts.Args(*head, *tail, *turn_counters(control)), threads=threads)
    assert np.array_equal(out, shared), "the first thread takes the turns of all, expert after expert"
    decoded = np.stack([decode(p, rows, columns, name) for p in panels])
    used = routed.slots.ravel()
    gathered = np.zeros_like(wide)
    gathered[used] = x[routed.sources[used] // 2]
    expected = experts.reference(decoded, name, gathered, routed.segments, biases[:, :rows])
    np.testing.assert_allclose(out[used, :rows], expected[used], rtol=2e-4, atol=2e-4)
    both = (address(out), address(out), rows, address(out), out.strides[0], 0, 0)
    before = out.copy()
    call(BODY.kernel("expert_rows:silu_mul"), expert_rows.Gated(*both, address(routed.table), 0, 0), threads=threads)
    expected = silu_mul.reference(before[used, :rows], before[used, :rows])
    np.testing.assert_allclose(out[used, :rows], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_clamped_gate(threads):
    rng = np.random.default_rng(5)
    routed = Routed(random_logits(9, 4), 2, True)
    gate, up = (rng.normal(0, 4, (routed.capacity, 64)).astype(np.float32) for _ in range(2))
    used, out = routed.slots.ravel(), np.zeros_like(gate)
    both = (address(gate), address(up), 64, address(out), out.strides[0], 0, 0, address(routed.table))
    bits = [int(np.float32(value).view(np.int32)) for value in (1.702, 2.5)]
    call(BODY.kernel("expert_rows:clamped"), expert_rows.Gated(*both, *bits), threads=threads)
    x, y = np.minimum(gate[used].astype(np.float64), 2.5), np.clip(up[used].astype(np.float64), -2.5, 2.5)
    expected = (y + 1) * x / (1 + np.exp(-1.702 * x))
    np.testing.assert_allclose(out[used], expected, rtol=1e-5, atol=1e-6)
    twin = expert_rows.gated_reference(gate[used], up[used], 1.702, 2.5)
    np.testing.assert_allclose(twin, expected, rtol=1e-6, atol=1e-7)
    x, y = gate[used].astype(np.float64), up[used].astype(np.float64)
    np.testing.assert_allclose(expert_rows.gated_reference(gate[used], up[used]), x / (1 + np.exp(-x)) * y, rtol=1e-5)


@pytest.mark.parametrize("kind", (*expert_rows.ACTIVATIONS, *expert_rows.ALONE))
def test_gates_of_other_kinds(kind):
    rng = np.random.default_rng(7)
    routed = Routed(random_logits(9, 4), 2, True)
    gate, up = (rng.normal(0, 4, (routed.capacity, 64)).astype(np.float32) for _ in range(2))
    used, out = routed.slots.ravel(), np.zeros_like(gate)
    both = (address(gate), address(up), 64, address(out), out.strides[0], 0, 0, address(routed.table), 0, 0)
    call(BODY.kernel(f"expert_rows:{kind}"), expert_rows.Gated(*both), threads=2)
    gated_by = None if kind in expert_rows.ALONE else up[used]
    np.testing.assert_allclose(out[used], activation.reference(gate[used], kind, gated_by), rtol=1e-5, atol=1e-5)
