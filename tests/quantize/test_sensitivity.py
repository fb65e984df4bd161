"""Sensitivities: what each matrix' types cost, told from one measurement of each, and beside direct ones."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import block_type
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File, open_file
from edgeq.conversion.conversion import convert
from edgeq.graph.aligned import aligned_copy
from edgeq.quantize.factors import Metric
from edgeq.quantize.layerwise import EMBEDDING
from edgeq.quantize.loss_probe import Probe
from edgeq.quantize.sensitivity import Sensitivities, sensitivities
from edgeq.quantize.stages import moment, run
from edgeq.quantize.type_plan import Goal, plan

TYPES = ("Q2_K", "Q4_K", "Q6_K", "Q8_0")
MATRIX = "blk.1.ffn_gate.weight"


@pytest.fixture(scope="module")
def floats(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[File]:
    path = tmp_path_factory.mktemp("floats") / "tiny.eqf"
    convert(tiny_model, path, "F32")
    with open_file(path) as file:
        yield file


@pytest.fixture(scope="module")
def sequences(floats: File) -> list[np.ndarray]:
    rng, vocabulary = np.random.default_rng(3), floats.metadata["config"]["vocab_size"]
    return [rng.integers(0, vocabulary, 64, np.int32) for _ in range(10)]


@pytest.fixture(scope="module")
def measured(floats: File, sequences: list[np.ndarray]) -> Sensitivities:
    return sensitivities(floats, sequences[:8], sequences[8:], TYPES, positions=64)


def test_every_matrix_costs_less_in_larger_types(floats: File, measured: Sensitivities) -> None:
    matrices = {name for name, info in floats.tensors.items() if len(info.shape) == 2}
    assert measured.losses.keys() == matrices
    for losses in measured.losses.values():
        assert losses["Q2_K"] > losses["Q4_K"] > losses["Q6_K"] > 0 and losses["Q4_K"] > losses["Q8_0"] > 0


def test_what_is_told_from_one_type_is_near_what_another_costs(
    floats: File, sequences: list[np.ndarray], measured: Sensitivities
) -> None:
    probe = Probe(floats, sequences[8:9], positions=64)
    seen: dict[str, list[np.ndarray]] = {MATRIX: []}
    run(floats, range(1, 3), run(floats, range(1), sequences[:8], 1), 1, seen)
    x = seen[MATRIX]
    metric = Metric(moment(x, x), sum(map(len, x)))
    rows, columns = floats.tensors[MATRIX].shape
    weights = decode(floats.data(MATRIX), rows, columns, floats.tensors[MATRIX].type)
    for kind in TYPES[:3]:
        panels = aligned_copy(metric.quantize(weights, block_type(kind)))
        direct = probe.loss(ChangedFile(floats, {MATRIX: (kind, panels)}), 2).divergence
        assert measured.losses[MATRIX][kind] == pytest.approx(direct, rel=0.35)


def test_a_loss_is_that_of_a_model_that_is_run_as_one(
    floats: File, sequences: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those are whose layers need more than the one before them gives."""
    rows, columns = floats.tensors[MATRIX].shape
    weights = decode(floats.data(MATRIX), rows, columns, floats.tensors[MATRIX].type)
    other = ChangedFile(floats, {MATRIX: ("Q4_0", aligned_copy(encode(weights, "Q4_0")))})
    staged = Probe(floats, sequences[8:10]).loss(other)
    monkeypatch.setattr("edgeq.models.composition.Model.in_stages", False)
    assert Probe(floats, sequences[8:10]).loss(other, 2) == staged and staged.divergence > 0


def test_feedback_loses_less_than_importance(
    floats: File, sequences: list[np.ndarray], measured: Sensitivities
) -> None:
    weighed = sensitivities(floats, sequences[:8], sequences[8:], TYPES, feedback=False, positions=64)
    fed_back, by_importance = (sum(one["Q4_K"] for one in found.losses.values()) for found in (measured, weighed))
    assert fed_back < by_importance


def test_all_one_after_the_other_lose_less_than_the_sum_and_exact_ones_nearly_nothing(measured: Sensitivities) -> None:
    alone = measured.floor + sum(losses["Q3_K"] for losses in measured.losses.values())
    assert 0 < measured.others < measured.coarse and 0.2 < measured.coarse / alone < 1.5
    assert 0 < measured.floor < 0.1 * sum(losses["Q4_K"] for losses in measured.losses.values())


def test_what_a_type_adds_to_a_file_is_told_for_the_embedding_apart() -> None:
    alone = {EMBEDDING: {"Q2_K": 12.0, "Q3_K": 4.0}, "a": {"Q3_K": 1.0, "Q4_K": 0.2}, "b": {"Q3_K": 0.5}}
    found = Sensitivities(alone, floor=0.5, coarse=3.25, others=1.25)
    assert found.added(EMBEDDING) == {"Q2_K": 6.0, "Q3_K": 2.0}
    assert found.added("a") == {"Q3_K": 0.5, "Q4_K": 0.1}
    assert found.floor + sum(found.added(name)["Q3_K"] for name in alone) == found.coarse
    nothing_told = Sensitivities(alone, floor=0.0, coarse=0.0, others=0.0)
    assert [nothing_told.added(name) for name in alone] == list(alone.values())


def test_the_prediction_of_all_in_the_coarse_type_is_what_that_was_measured_to_lose(
    floats: File, measured: Sensitivities
) -> None:
    largest = {name: {"Q3_K": losses["Q3_K"]} for name, losses in measured.losses.items()}
    only = Sensitivities(largest, measured.floor, measured.coarse, measured.others)
    assert plan(floats, only, Goal(), 0).divergence == pytest.approx(measured.coarse)
