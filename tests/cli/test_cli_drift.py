"""drift: texts beside a file's calibration; alerts are lines, JSON and the exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

import edgeq as package
from edgeq.container.reader import open_file
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.imatrix import read_calibration

SHIPPED = Path(package.__file__).parent / "quantize" / "text"


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory) -> Path:
    """Converted with a calibration of prose."""
    folder = tmp_path_factory.mktemp("drift")
    texts = [SHIPPED / f"{name}.txt" for name in ("narrative", "letters")]
    package.calibrate(tiny_model, folder / "m.calib", texts, tokens=1500, length=128)
    calibration = read_calibration(folder / "m.calib")
    request = package.Request(calibration, "importance")
    package.convert(tiny_model, folder / "m.eqf", "Q8_0", request=request)
    return folder / "m.eqf"


def test_what_was_calibrated_is_no_drift_and_code_is(edgeq, model: Path):
    arguments = ("drift", model, "--text", f"prose={SHIPPED / 'narrative.txt'}", "--tokens", 1024)
    same = edgeq(*arguments)
    assert (same.code, same.err) == (0, ""), same
    assert same.out.startswith("prose: 32 parts, 1024 tokens: perplexity ") and "alert" not in same.out
    other = edgeq(*arguments, "--text", f"code={SHIPPED / 'c_code.txt'}")
    assert other.code == 1 and other.out.startswith(same.out.splitlines()[0])
    alerts = [line for line in other.out.splitlines() if line.startswith("alert: ")]
    assert alerts and all(line.startswith("alert: code: ") for line in alerts)
    assert any(" (layer " in line for line in alerts), alerts
    found = json.loads(edgeq(*arguments, "--text", f"code={SHIPPED / 'c_code.txt'}", "--json").out)
    assert found["alarmed"] and [one["alarmed"] for one in found["slices"]] == [False, True]
    assert found["slices"][1]["nearest"] in ("narrative.txt", "letters.txt")
    assert {"level", "slice", "where", "what", "value", "limit", "text"} == found["slices"][1]["alerts"][0].keys()
    assert len(found["slices"][0]["indices"]) == 24


def test_too_little_text_is_said(edgeq, model: Path, tmp_path: Path):
    (tmp_path / "few.txt").write_text("int main(void) { return 0; } " * 8)
    result = edgeq("drift", model, "--text", tmp_path / "few.txt")
    assert result.code == 0 and "few.txt: too little text to judge by: give more" in result.out


def test_what_cannot_be_compared_is_refused(edgeq, model: Path, tiny_model: Path, tmp_path: Path):
    package.convert(tiny_model, tmp_path / "plain.eqf", "Q8_0")
    text = SHIPPED / "narrative.txt"
    (tmp_path / "empty.txt").write_text("")
    cases = [
        ((tmp_path / "plain.eqf", "--text", text), "plain.eqf: does not say what it was calibrated with: convert it"),
        ((model, "--text", tmp_path / "none.txt"), "none.txt: cannot be read"),
        ((model, "--text", tmp_path / "empty.txt"), "empty.txt: is empty"),
        ((tmp_path / "none.eqf", "--text", text), "none.eqf"),
    ]
    for arguments, message in cases:
        result = edgeq("drift", *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1) and message in result.err, result
    damaged = bytearray(model.read_bytes())
    with open_file(model) as file:
        damaged[file.assets["calibration.json"].offset + 10] ^= 1
    (tmp_path / "damaged.eqf").write_bytes(damaged)
    result = edgeq("drift", tmp_path / "damaged.eqf", "--text", text)
    assert result.code == 2 and "the checksum of asset 'calibration.json' is wrong" in result.err


def test_a_file_made_without_text_says_nothing(tiny_model: Path, model: Path, tmp_path: Path):
    known = read_calibration(model.with_name("m.calib"))
    bare = Calibration("imatrix", {name: known.matrices[name] for name in known.matrices})
    package.convert(tiny_model, tmp_path / "m.eqf", "Q8_0", request=package.Request(bare))
    with open_file(tmp_path / "m.eqf") as file:
        assert "calibration.json" not in file.assets
    with open_file(model) as file:
        assert "calibration.json" in file.assets and np.isfinite(file.nbytes)
