"""Comparing all ways to quantize a model: what is tried, what is told of each, what is worth having."""

from dataclasses import replace
from pathlib import Path

import pytest

import edgeq
from edgeq.conversion import comparing
from edgeq.conversion.comparing import METHODS, Candidate, Comparison, compare, planned
from edgeq.errors import UnsupportedError, UsageError
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.loss_probe import Loss

CUT = {"tokens": 640, "length": 32}


def candidate(name: str, nbytes: int, divergence: float, simulated: bool = False) -> Candidate:
    return Candidate(name, "plain", simulated, nbytes, 4.0, Loss(divergence, 0.01, 0.9, 1.1), 0.1, 1.0)


def test_the_front_is_what_no_smaller_file_beats():
    found = [
        candidate("a", 10, 1.0),
        candidate("b", 20, 1.2),
        candidate("c", 20, 0.5),
        candidate("d", 25, 0.1, simulated=True),
        candidate("e", 30, 0.5),
        candidate("f", 40, 0.2),
    ]
    comparison = Comparison("m", 100, 8, found)
    assert [one.type for one in comparison.front] == ["a", "c", "f"]
    assert Comparison("m", 100, 8).front == []


def test_what_is_tried():
    usual = planned(None, None)
    assert ("Q2_K", "plain") in usual and ("Q2_K", "feedback") in usual and ("NF4_DQ", "plain") in usual
    assert [method for _, method in usual] == sorted((each for _, each in usual), key=METHODS.index), "long ones last"
    of_eight = {(kind, method) for kind, method in usual if method in ("smoothed", "static", "smoothed-static")}
    assert of_eight == {("Q8_0", "smoothed"), *(("I8_R", each) for each in ("smoothed", "static", "smoothed-static"))}
    assert not of_eight & {*planned(None, None, feedback=False)}
    assert planned(["Q4_0", "I8_R", "INT8_ROW"], ["static", "smoothed"]) == [
        ("Q4_0", "smoothed"),
        ("I8_R", "smoothed"),
        ("I8_R", "static"),
    ]
    assert {kind for kind, method in usual if method == "feedback"} == {"Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"}
    assert ("Q2_K", "importance") in planned(None, None, feedback=False)
    asked = planned(["q4_0", "int8_row", "F16", "Q4_0"], ["importance", "plain"])
    assert asked == [("Q4_0", "plain"), ("INT8_ROW", "plain"), ("F16", "plain"), ("Q4_0", "importance")]


@pytest.mark.parametrize(
    ("types", "methods", "message"),
    [
        (["Q9"], None, "unknown type 'Q9': .*; simulated INT4_TENSOR, "),
        (
            ["Q4_0"],
            ["gptq"],
            "unknown method 'gptq': known are plain, smoothed, static, smoothed-static, ",
        ),
        (["INT8_ROW"], ["feedback"], "INT8_ROW: cannot be made by feedback: ask for plain"),
        (["Q8_0"], ["static"], "Q8_0: cannot be made by static: ask for plain"),
        ([], None, "no type"),
    ],
)
def test_what_cannot_be_tried(types, methods, message):
    with pytest.raises(UsageError, match=message):
        planned(types, methods)
    with pytest.raises(UsageError, match="holds no text to run"):
        planned(["Q4_0"], ["feedback"], feedback=False)


@pytest.fixture(scope="module")
def comparison(tiny_model: Path) -> Comparison:
    return edgeq.compare(tiny_model, ["Q8_0", "Q2_K", "INT4_ROW"], ["plain", "importance"], **CUT)


def test_what_is_told(comparison: Comparison, tiny_model: Path, tmp_path: Path):
    kinds = [(one.type, one.method) for one in comparison.candidates]
    assert {*kinds[:2]} == {("Q2_K", "plain"), ("Q2_K", "importance")} and kinds[2] == ("INT4_ROW", "plain")
    assert {*kinds[3:]} == {("Q8_0", "plain"), ("Q8_0", "importance")}
    by = {kind: one for kind, one in zip(kinds, comparison.candidates, strict=True)}
    made = edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q2_K")
    plain = by["Q2_K", "plain"]
    assert abs(plain.nbytes - made.nbytes) < 500 and plain.bits_per_weight == made.bits_per_weight
    assert by["Q2_K", "importance"].loss.divergence < plain.loss.divergence, "it knows what columns read"
    assert by["Q8_0", "plain"].loss.divergence < 0.005 < by["INT4_ROW", "plain"].loss.divergence
    assert by["Q8_0", "plain"].error < 0.01 < plain.error < by["INT4_ROW", "plain"].error < 0.3
    assert all(one.loss.error > 0 and one.seconds > 0 for one in comparison.candidates)
    assert comparison.positions > 30 and comparison.complete and not comparison.notes


def test_what_can_be_done_to_activations(tiny_model: Path, tmp_path: Path):
    """Static scales lose more than those of each token, less of a smoothed model; both are what the file carries."""
    methods = ["plain", "smoothed", "static", "smoothed-static"]
    comparison = compare(tiny_model, ["I8_R"], methods, tokens=2048, length=64)
    loss = {one.method: one.loss.divergence for one in comparison.candidates}
    assert len({*loss.values()}) == 4 and not comparison.notes
    assert loss["plain"] < loss["smoothed-static"] < loss["static"] < 0.1
    sizes = {one.method: one.nbytes for one in comparison.candidates}
    assert abs(sizes["smoothed-static"] - sizes["static"]) < 5000
    edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    again = compare(tmp_path / "m.eqf", ["I8_R"], ["plain", "smoothed"], **CUT)
    (note,) = again.notes
    assert note.startswith("I8_R smoothed: ") and "has no float weights to smooth" in note


def test_ctrl_c_leaves_what_is_known(tiny_model: Path, empty_cache: Path):
    def stop(one: Candidate, done: int, number: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    comparison = compare(tiny_model, ["Q8_0", "Q4_0", "Q2_K"], ["plain"], found=stop, **CUT)
    assert [one.type for one in comparison.candidates] == ["Q4_0", "Q8_0"] and not comparison.complete
    assert not [path for path in empty_cache.iterdir() if "compare" in path.name], "nothing is left"


def test_one_that_fails_does_not_end_it(tiny_model: Path, tmp_path: Path, monkeypatch):
    made = comparing._Workshop.candidate

    def failing(self: comparing._Workshop, kind: str, method: str) -> Candidate:
        if kind == "Q4_0":
            raise UnsupportedError("m: tensor 'a' holds 1e+06, which Q4_0 cannot hold: take BF16 or F32")
        return made(self, kind, method)

    edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    monkeypatch.setattr("edgeq.conversion.comparing._Workshop.candidate", failing)
    found = compare(tmp_path / "m.eqf", ["Q4_0", "Q8_0"], ["plain"], **CUT)
    assert found.notes == ["Q4_0 plain: m: tensor 'a' holds 1e+06, which Q4_0 cannot hold: take BF16 or F32"]
    [same] = found.candidates
    assert (same.loss.divergence, same.error) == (0, 0), "the file is that type already"
    with pytest.raises(UnsupportedError, match="which Q4_0 cannot hold"):
        compare(tmp_path / "m.eqf", ["Q4_0"], ["plain"], **CUT)


def test_a_calibration_is_used_and_its_text(tiny_model: Path, tmp_path: Path):
    report = edgeq.calibrate(tiny_model, tmp_path / "m.calib", **CUT)
    for given in (report.path, report.calibration):
        found = compare(tiny_model, ["Q2_K"], ["plain", "importance"], calibration=given)
        assert found.candidates[0].loss.divergence != found.candidates[1].loss.divergence
    with pytest.raises(UsageError, match="give texts, or a calibration"):
        compare(tiny_model, texts=["a.txt"], calibration=report.calibration)
    other = replace(report.calibration, subject=replace(report.calibration.subject, layers=2))
    with pytest.raises(UsageError, match="2 layers"):
        compare(tiny_model, calibration=other)
    matrices = Calibration("llama.cpp's", report.calibration.matrices)  # without a text
    assert len(compare(tiny_model, ["Q2_K"], calibration=matrices, **CUT).candidates) == 2


def test_too_little_text(tiny_model: Path, tmp_path: Path):
    (tmp_path / "short.txt").write_text("Once upon a time there was a girl. " * 10)
    with pytest.raises(UsageError, match=r"of 8 sequences one is kept back .* and there are 1: give more text"):
        compare(tiny_model, texts=[tmp_path / "short.txt"])
