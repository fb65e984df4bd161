"""The file that a model is calibrated from, and what a user is told."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import edgeq
from edgeq.container.reader import open_file
from edgeq.conversion.calibrating import notes_on, runnable_file, sequences_of, worth_calibrating
from edgeq.conversion.passages import read_text
from edgeq.errors import OutputError, UnsupportedError
from edgeq.quantize.calibration import Calibration, Statistics
from edgeq.quantize.pipeline import exact_type
from edgeq.text.world import FILE, vocabulary

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
import random_checkpoints


def checkpoint(*kinds: str, packed: bool = False) -> SimpleNamespace:
    """A stand-in with a matrix of each kind, and an F32 vector."""
    tensors = {f"{i}": SimpleNamespace(dtype=kind, shape=(4, 4)) for i, kind in enumerate(kinds)}
    tensors["norm"] = SimpleNamespace(dtype="F32", shape=(4,))
    return SimpleNamespace(tensors=tensors, packed={"0": None} if packed else {})


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [(("BF16", "BF16"), "BF16"), (("F16",), "F16"), (("F32",), "F32"), (("BF16", "F16"), "F32"), (("F8_E4M3",), "F32")],
)
def test_the_type_holds_all_weights_exactly(kinds: tuple[str, ...], expected: str):
    assert exact_type(checkpoint(*kinds)) == expected
    assert exact_type(checkpoint(*kinds, packed=True)) is None, "codes are kept"


def test_a_checkpoint_runs_from_a_file_that_goes_away(tiny_model: Path, tmp_path: Path):
    with runnable_file(str(tiny_model), tmp_path / "m.calib") as file:
        assert Path(file.path).is_relative_to(tmp_path)
        assert {info.type for name, info in file.tensors.items() if name.endswith("ffn_up.weight")} == {"BF16"}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="cannot be written"), runnable_file(str(tiny_model), tmp_path / "no" / "m"):
        pass


def test_no_sequence_is_longer_than_what_a_model_was_trained_for(tiny_model: Path, tmp_path: Path):
    """Beyond that it reads nothing that it will ever read."""
    made = edgeq.convert(tiny_model, tmp_path / "m.eqf", "BF16")
    (tmp_path / "story.txt").write_text("Once upon a time there was a little girl who lived near the sea. " * 100)
    texts = [read_text(tmp_path / "story.txt")]
    for trained, asked, longest in ((8192, None, 512), (100, None, 100), (100, 200, 200)):
        with open_file(made.path) as file:
            file.metadata["config"]["max_position_embeddings"] = trained
            found = sequences_of(file, "m", texts, asked)
        assert max(len(one.tokens) for one in found) == longest, trained


def test_a_model_whose_layers_cannot_be_run_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its columns count by what they read; what that has cost is measured, and no goal can be met."""
    monkeypatch.setitem(random_checkpoints.CASES, "rwkv7", random_checkpoints.CASES["rwkv7"] | {"vocab_size": 260})
    folder = random_checkpoints.write("rwkv7", tmp_path / "c")
    (folder / FILE).write_bytes(vocabulary({b + 1: bytes([b]) for b in range(256)}))
    assert worth_calibrating(folder, "Q4_0") and not worth_calibrating(folder, "Q8_0")
    (tmp_path / "story.txt").write_text("Once upon a time there was a little girl who lived near the sea. " * 20)
    known = edgeq.calibrate(folder, tmp_path / "m.calib", [tmp_path / "story.txt"], length=64).calibration
    report = edgeq.convert(folder, tmp_path / "m.eqf", "Q4_0", request=edgeq.Request(known))
    assert report.loss is not None and 0 < report.loss.divergence < 1
    plain = edgeq.convert(folder, tmp_path / "plain.eqf", "Q4_0")
    assert plain.nbytes < report.nbytes, "which says what it reads"
    with open_file(tmp_path / "m.eqf") as made, open_file(tmp_path / "plain.eqf") as other:
        name = "blk.0.time_mix_key.weight"
        assert made.tensors[name].type == "Q4_0" and made.tensors[name].crc32 != other.tensors[name].crc32
    with pytest.raises(UnsupportedError, match="cannot be run one by one"):
        edgeq.convert(folder, tmp_path / "m.eqf", "Q4_0", request=edgeq.Request(known, divergence=0.5))


def test_a_user_hears_of_experts_that_saw_little_and_of_what_is_not_known():
    few = Statistics(np.ones((3, 4), np.float32), np.array([5, 200, 300]))
    many = Statistics(np.ones((3, 4), np.float32), np.array([500, 200, 300]))
    up = {f"blk.{i}.ffn_up_exps.weight": few for i in range(5)}
    tensors = {
        f"blk.0.ffn_{part}_exps.weight": SimpleNamespace(type="BF16", shape=(3, 4, 4)) for part in ("up", "down")
    }
    file = SimpleNamespace(tensors=tensors)
    first, second, more, down = notes_on(Calibration("x", {**up, "blk.9.ffn_up_exps.weight": many}), file)
    assert first == "blk.0.ffn_up_exps.weight: 1 of 3 experts saw fewer than 100 tokens"
    assert second.startswith("blk.1.ffn_up_exps") and more == "and 3 more matrices like these"
    assert down == "what the last matrices of experts read is not known: these are quantized without"
    del tensors["blk.0.ffn_down_exps.weight"]
    assert notes_on(Calibration("x", {"blk.9.ffn_up_exps.weight": many}), file) == []


def test_python_has_all_that_converting_with_a_calibration_needs(tiny_model: Path, tmp_path: Path):
    (tmp_path / "story.txt").write_text("Once upon a time there was a little girl who lived near the sea. " * 20)
    told: list[tuple[str, int, int]] = []
    report = edgeq.calibrate(
        tiny_model, tmp_path / "m.calib", [tmp_path / "story.txt"], length=32, progress=lambda *one: told.append(one)
    )
    assert told[-1] == ("story.txt", report.calibration.tokens, report.calibration.tokens)
    assert edgeq.read_calibration(report.path).tokens == report.calibration.tokens > 250
    request = edgeq.Request(report.calibration, method="importance")
    made = edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q4_0", request=request)
    assert made.loss is not None and 0 < made.loss.divergence < 0.2
    with pytest.raises(edgeq.UsageError, match=r"none\.txt: cannot be read"):
        edgeq.calibrate("no model", tmp_path / "m.calib", [tmp_path / "none.txt"])
