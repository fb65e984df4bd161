"""What rounding to few bits has cost: where it is measured, and which type would hold."""

from pathlib import Path

import pytest

import edgeq
from edgeq.conversion.plain_loss import LADDER, _smallest, may_be_bad, measurable, plain_loss
from edgeq.quantize.recipes import RECIPES


def test_only_what_has_few_bits_is_measured():
    worth = {name for name in RECIPES if may_be_bad(name)}
    assert worth == {
        "Q1_0",
        "Q2_0",
        "Q2_K",
        "Q3_K_S",
        "Q3_K_M",
        "TQ2_0",
        "IQ4_XS",
        "MXFP4",
        "IQ4_NL",
        "NF4",
        "Q4_0",
        "Q4_K_S",
    }
    assert not may_be_bad("q4_k") and may_be_bad("q3_k"), "other names of the same"


@pytest.mark.parametrize("type", ["Q2_K", "Q3_K_M", "TQ2_0", "IQ4_XS", "Q8_0"])
def test_the_smallest_type_that_holds_is_found_in_few_steps(type: str):
    above = [kind for kind in LADDER if kind not in LADDER[: LADDER.index(type) + 1]] if type in LADDER else None
    for least in above or ["Q4_K_S", "Q6_K", "F16"]:
        tried: dict[str, bool] = {}
        holding = LADDER[LADDER.index(least) :]
        assert _smallest(type, lambda kind, seen=tried, good=holding: seen.setdefault(kind, kind in good)) == least
        assert len(tried) <= 4 and "F16" not in tried


def test_only_small_models_that_read_text_can_be_measured(tiny_model: Path, tmp_path: Path, monkeypatch):
    edgeq.convert(tiny_model, tmp_path / "m.eqf", "BF16")
    assert measurable(tmp_path / "m.eqf")
    monkeypatch.setattr("edgeq.conversion.plain_loss.SMALL", 3_000_000)
    assert not measurable(tmp_path / "m.eqf")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    edgeq.convert(tmp_path, tmp_path / "mute.eqf", "BF16", allow_no_tokenizer=True)
    monkeypatch.undo()
    assert not measurable(tmp_path / "mute.eqf")


def test_what_holds_does_so(tiny_model: Path, tmp_path: Path):
    for kind in ("BF16", "TQ2_0"):
        edgeq.convert(tiny_model, tmp_path / f"{kind}.eqf", kind)
    exact = tmp_path / "BF16.eqf"
    told: list[tuple[str, int, int, int, int]] = []
    loss, smallest = plain_loss(
        exact, tmp_path / "TQ2_0.eqf", "TQ2_0", tmp_path, progress=lambda *one: told.append(one)
    )
    measured = [name for name, *numbers in told if numbers == [0, 0, 0, 0]]
    assert measured[0] == "measuring TQ2_0" and len(measured) > 2, "and each that is tried"
    assert "output_norm.weight" in {name for name, *_ in told}
    assert loss.large and LADDER.index("Q2_K") <= LADDER.index(smallest) < LADDER.index("Q8_0")
    edgeq.convert(tiny_model, tmp_path / "again.eqf", smallest)
    held, none = plain_loss(exact, tmp_path / "again.eqf", smallest, tmp_path)
    assert not held.large and held.divergence < loss.divergence and none == ""


def test_python_is_told_where_it_asks(tiny_model: Path, tmp_path: Path):
    assert edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q2_K").loss is None
    assert edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q4_K_M", measure=True).loss is None, "that costs nothing"
    again = edgeq.convert(tmp_path / "m.eqf", tmp_path / "again.eqf", "TQ2_0", measure=True)
    assert again.loss is not None and again.loss.large and again.holds in LADDER
    exported = edgeq.convert(tiny_model, tmp_path / "m.gguf", "TQ2_0", measure=True)
    assert exported.loss is not None and not exported.loss.large and not exported.holds, "rows of 192 get Q4_0 there"
