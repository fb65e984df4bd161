"""Gemma 3n: what each layer computes, what is refused, bits that nothing changes, the model inside the larger one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_checkpoints
from gemma_cases import CASES
from safetensors.numpy import load_file, save_file

from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError, EdgeqError, UnsupportedError
from edgeq.models import architecture
from edgeq.models.altup import AltUp
from edgeq.models.composition import Model
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.mixers import Attention
from edgeq.ops import Graph
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def model(**changes: Any) -> Model:
    found = architecture({**CASES["gemma3n"], **changes})
    assert isinstance(found, Model)
    return found


def cutoffs(found: Model) -> list[float | None]:
    return [layer.ffn.cutoff for layer in found.layers if isinstance(layer.ffn, GatedMLP)]


def test_layers_are_as_the_configuration_says() -> None:
    found = model()
    mixers = [layer.mixer for layer in found.layers if isinstance(layer.mixer, Attention)]
    assert [mixer.reads for mixer in mixers] == [None, None, None, 2, 1, 2]
    assert [mixer.heads.sliding_window for mixer in mixers] == [24, None, 24, 24, None, 24]
    assert [found.tensors[f"blk.{i}.ffn_down.weight"].shape[1] for i in range(6)] == [96, 100, 96, 80, 100, 96]
    expected = [1.6448536, None, -0.5244005, 0.8416212, 0.0, None]  # quantiles of the normal distribution
    for cutoff, value in zip(cutoffs(found), expected, strict=True):
        assert cutoff is value or cutoff == pytest.approx(value, abs=1e-6)
    assert "blk.2.attn_k.weight" in found.tensors and "blk.3.attn_k.weight" not in found.tensors


def test_what_a_configuration_may_leave_out() -> None:
    """As in Gemma 3n E4B: the first ten layers of more are sparse, every fifth one is global."""
    without = {key: None for key in ("activation_sparsity_pattern", "layer_types")}
    found = model(**without, num_hidden_layers=12, intermediate_size=96, num_kv_shared_layers=0)
    assert cutoffs(found) == [pytest.approx(1.6448536)] * 10 + [None] * 2
    assert found.windows == [24, 24, 24, 24, None] * 2 + [24, 24]
    assert cutoffs(model(**without, num_hidden_layers=10, intermediate_size=96, num_kv_shared_layers=0)) == [None] * 10


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"num_kv_shared_layers": 6}, CheckpointError, "num_kv_shared_layers is 6, there are 6 layers"),
        ({"intermediate_size": [96] * 5}, CheckpointError, "intermediate_size is a list of 5, there are 6 layers"),
        ({"intermediate_size": [96] * 5 + [0]}, CheckpointError, "intermediate_size is 0, a positive integer"),
        ({"activation_sparsity_pattern": 0.95}, CheckpointError, "activation_sparsity_pattern is 0.95, a list of 6"),
        ({"activation_sparsity_pattern": [0.5] * 5}, CheckpointError, "a list of 6 is needed"),
        ({"activation_sparsity_pattern": [0.5] * 5 + [1.0]}, CheckpointError, "has 1.0, numbers from 0 to below 1"),
        ({"activation_sparsity_pattern": [0.5] * 5 + ["0"]}, CheckpointError, "has '0', numbers from 0 to below 1"),
        ({"altup_active_idx": 3}, CheckpointError, "altup_active_idx is 3, there are 3 streams"),
        ({"altup_num_inputs": 65}, CheckpointError, "altup_num_inputs is 65, a positive integer is needed, at most 64"),
        ({"hidden_size_per_layer_input": 40}, UnsupportedError, "a multiple of 32 is needed"),
        ({"hidden_size_per_layer_input": 0}, UnsupportedError, "hidden_size_per_layer_input is 0: not supported"),
    ],
)
def test_what_it_cannot_be_is_refused(changes: dict[str, Any], kind: type[EdgeqError], message: str) -> None:
    with pytest.raises(kind, match=message):
        model(**changes)


def test_the_scale_of_what_the_second_embedding_reads_may_be_left_out() -> None:
    """Then what it reads is the stream itself, not a copy."""
    said = []
    for scaled in (True, False):
        found = model(altup_correct_scale=scaled)
        assert ("blk.0.altup_correct_scale.weight" in found.tensors) is scaled
        graph = Graph({name: tensor.shape for name, tensor in found.tensors.items()})
        found.graph(graph)
        said.append([type(node.op).__name__ for node in graph.nodes])
    assert said[0].count("MulRow") == 6 and said[1].count("MulRow") == 0
    assert said[0].count("WeighedSum") - said[1].count("WeighedSum") == 6


def test_layers_are_not_run_alone() -> None:
    found = model()
    graph = Graph({name: tensor.shape for name, tensor in found.tensors.items()})
    with pytest.raises(UnsupportedError, match="cannot be run one by one: quantize without calibration"):
        found.graph(graph, range(1, 2))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma3n")
    convert(random_checkpoints.write("gemma3n", folder), folder / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    return folder / "m.eqf"


@pytest.mark.parametrize(("threads", "batch"), [(1, 512), (3, 16), (2, 1), (5, 7)])
def test_bits_depend_on_neither_threads_nor_batches(file: Path, threads: int, batch: int) -> None:
    prompt = random_checkpoints.make("gemma3n")[2]
    with open_file(file) as opened:
        with Session(opened, context=len(prompt), threads=2) as session:
            expected = session.eval(prompt, all_logits=True)
        with Session(opened, context=len(prompt), threads=threads, batch=batch) as session:
            np.testing.assert_array_equal(session.eval(prompt, all_logits=True), expected)


def test_the_language_model_of_one_with_eyes_and_ears(file: Path, tmp_path: Path) -> None:
    folder = random_checkpoints.write("gemma3n", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    larger = {"model_type": "gemma3n", "architectures": ["Gemma3nForConditionalGeneration"], "text_config": config}
    (folder / "config.json").write_text(json.dumps(larger))
    tensors = load_file(folder / "model.safetensors")
    tensors = {f"model.language_model.{name.removeprefix('model.')}": each for name, each in tensors.items()}
    save_file({**tensors, "model.vision_tower.patch.weight": np.ones((2, 2))}, folder / "model.safetensors")
    report = convert(folder, tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    assert any("the language model is converted: it reads text, and nothing else" in note for note in report.notes)
    with open_file(file) as one, open_file(tmp_path / "m.eqf") as other:
        assert one.tensors.keys() == other.tensors.keys()
        for name in one.tensors:
            np.testing.assert_array_equal(one.data(name), other.data(name))


def test_what_weighs_streams_is_kept_exact(file: Path) -> None:
    with open_file(file) as opened:
        small = [info.type for name, info in opened.tensors.items() if ".altup_" in name]
    assert small and set(small) == {"F32"}
    assert isinstance(model().around, AltUp)
