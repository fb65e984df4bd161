"""Layer-wise quantization: who reads the same, that it loses less, and that it goes on where it was stopped."""

from collections.abc import Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import CASES, write

from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File, open_file
from edgeq.graph.aligned import aligned
from edgeq.kernels.encode_api import encode_panels
from edgeq.models import architecture
from edgeq.quantize.layerwise import LayerWise
from edgeq.quantize.loss_probe import Probe
from edgeq.quantize.pipeline import convert
from edgeq.quantize.stages import Reading, readings, run
from edgeq.text.tokenizer import load_tokenizer

TEXTS = ("narrative", "essays", "letters", "instructions")  # of those that come with edgeq


@pytest.fixture(scope="module")
def file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[File]:
    path = tmp_path_factory.mktemp("layers") / "tiny.eqf"
    convert(tiny_model, path, "BF16")
    with open_file(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def sequences(file: File) -> list[np.ndarray]:
    tokenizer = load_tokenizer({n: file.asset(n) for n in file.assets}, file.path, 2048)
    folder = files("edgeq.quantize") / "text"
    tokens = [token for name in TEXTS for token in tokenizer.encode((folder / f"{name}.txt").read_text("utf-8"))]
    return [np.array(tokens[first : first + 128], np.int32) for first in range(0, len(tokens) - 127, 128)]


def types_of(file: File, kind: str, layers: int = 2) -> dict[str, str]:
    """Of the embedding and the matrices of the first layers."""
    within = ("token_embd", *(f"blk.{i}." for i in range(layers)))
    return {n: kind for n, i in file.tensors.items() if len(i.shape) == 2 and n.startswith(within)}


def changed(file: File, types: dict[str, str], panels: dict[str, np.ndarray]) -> ChangedFile:
    own = {}
    for name, data in panels.items():
        own[name] = types[name], aligned(data.nbytes)
        own[name][1][:] = data
    return ChangedFile(file, own)


def test_matrices_that_read_the_same_are_found_in_their_order(file: File) -> None:
    shapes = {name: info.shape for name, info in file.tensors.items()}
    found = readings(architecture(file.metadata["config"], "tiny"), shapes, range(2, 3))
    at = "blk.1."
    assert found == [
        Reading((f"{at}attn_q.weight", f"{at}attn_k.weight", f"{at}attn_v.weight"), ()),
        Reading((f"{at}attn_output.weight",), (f"{at}attn_output.weight",)),
        Reading((f"{at}ffn_gate.weight", f"{at}ffn_up.weight"), ()),
        Reading((f"{at}ffn_down.weight",), (f"{at}ffn_down.weight",)),
    ]


def test_it_loses_less_than_rounding_each_weight_by_itself(file: File, sequences: list[np.ndarray]) -> None:
    used, held = sequences[::2], sequences[1::8]
    types, probe = types_of(file, "Q3_K"), Probe(file, held)
    plain, weights = {}, {}
    for name, kind in types.items():
        rows, columns = file.tensors[name].shape
        weights[name] = decode(file.data(name), rows, columns, file.tensors[name].type)
        plain[name] = encode_panels(weights[name], kind)
    fed_back = dict(LayerWise(file, types, used).tensors())
    assert set(fed_back) == set(types) and not any(np.array_equal(fed_back[name], plain[name]) for name in types)
    for name, panels in fed_back.items():
        rows, columns = file.tensors[name].shape
        assert panels.nbytes == block_type(types[name]).tensor_bytes(rows, columns)
    with_plain, with_feedback = (probe.loss(changed(file, types, one)) for one in (plain, fed_back))
    assert with_feedback.divergence < 0.9 * with_plain.divergence
    assert probe.loss(file).divergence == pytest.approx(0, abs=1e-6) and probe.loss(file).same_top == 1


def test_what_was_stopped_goes_on_and_gives_the_same_bits(
    file: File, sequences: list[np.ndarray], tmp_path: Path
) -> None:
    types, told = types_of(file, "Q4_0"), list[str]()
    expected = dict(LayerWise(file, types, sequences[:2], threads=2).tensors())
    first = LayerWise(file, types, sequences[:2], threads=1, folder=tmp_path / "work")
    stopped = dict(islice(first.tensors(), 10))  # in the second layer
    assert len(stopped) == 10 and (tmp_path / "work" / "layer-1.npz").exists()
    found = dict(LayerWise(file, types, sequences[:2], announce=told.append, folder=tmp_path / "work").tensors())
    assert told[0].startswith("goes on after layer 1 of ")
    assert list(found) == list(expected) and all(np.array_equal(found[name], expected[name]) for name in expected)


def test_what_other_work_has_left_is_not_taken(file: File, sequences: list[np.ndarray], tmp_path: Path) -> None:
    dict(islice(LayerWise(file, types_of(file, "Q4_0", 1), sequences[:1], folder=tmp_path).tensors(), 9))
    for types, used in ((types_of(file, "Q4_1", 1), sequences[:1]), (types_of(file, "Q4_0", 1), sequences[1:2])):
        told: list[str] = []
        dict(islice(LayerWise(file, types, used, announce=told.append, folder=tmp_path).tensors(), 1))
        assert told == []
    (tmp_path / "state.npz").write_bytes(b"torn")
    dict(islice(LayerWise(file, types, used, announce=told.append, folder=tmp_path).tensors(), 1))
    assert told == []


@pytest.mark.parametrize("case", ["mixtral", "gpt-oss", "qwen2-moe", "nemotron-h-experts", "llama4-whole"])
def test_experts_lose_less_than_rounding_each_weight_by_itself(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "nemotron-h-experts":  # whose rows no groups divide
        monkeypatch.setitem(CASES, case, CASES[case] | {"moe_intermediate_size": 64})
    if case == "llama4-whole":
        sizes = {"hidden_size": 64, "intermediate_size": 64, "interleave_moe_layer_step": 1}
        monkeypatch.setitem(CASES, case, CASES[case] | sizes)
    convert(write(case, tmp_path), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    rng = np.random.default_rng(2)
    with open_file(tmp_path / "m.eqf") as file:
        vocabulary, _ = file.tensors["token_embd.weight"].shape
        basis = [rng.integers(0, vocabulary, 6) for _ in range(40)]  # a few tokens, so that what is read is correlated
        sequences = [rng.choice(one, 32).astype(np.int32) for one in basis]
        types = {n: "Q3_K" for n, i in file.tensors.items() if len(i.shape) == 3 and i.shape[-1] % 32 == 0}
        assert len(types) >= 4  # some have rows that no groups divide
        plain = {}
        for name in types:
            info = file.tensors[name]
            weights = file.data(name).view(np.float32)
            experts, rows, columns = info.shape
            each = [decode(one, rows, columns, info.type) for one in weights.reshape(experts, -1).view(np.uint8)]
            plain[name] = np.concatenate([encode_panels(one, "Q3_K") for one in each])
        fed_back = dict(LayerWise(file, types, sequences[:32]).tensors())
        assert {name: data.nbytes for name, data in fed_back.items()} == {n: d.nbytes for n, d in plain.items()}
        off = []
        for panels in (plain, fed_back):
            exact, seen = (
                np.concatenate(run(one, range(3), sequences[32:], 1)) for one in (file, changed(file, types, panels))
            )
            off.append(float(np.square(seen - exact).mean()))
        assert off[1] < 0.8 * off[0]
