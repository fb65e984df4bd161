"""bench/ablation.py: each step's divergence on held-out text, beside the base's."""

import importlib
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import UsageError
from edgeq.quantize.collect import Passage, calibrate
from edgeq.quantize.imatrix import write_calibration
from edgeq.quantize.pipeline import convert
from edgeq.text.tokenizer import load_tokenizer

BENCH = edgeq.__path__[0] + "/../bench"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return SimpleNamespace(**{name: importlib.import_module(name) for name in ("ablation", "table_file")})


def text(name: str) -> str:
    return (files("edgeq.quantize") / "text" / f"{name}.txt").read_text("utf-8")


@pytest.fixture
def arguments(tiny_model, tmp_path):
    convert(tiny_model, tmp_path / "tiny.eqf", "F32")
    with open_file(tmp_path / "tiny.eqf") as file:
        tokenizer = load_tokenizer({n: file.asset(n) for n in file.assets}, file.path, 2048)
        ids = tokenizer.encode(text("narrative"))
        passages = [Passage("own", ids[first : first + 128]) for first in range(0, 512, 128)]
        write_calibration(tmp_path / "tiny.calib", calibrate(file, passages, threads=1))
    (tmp_path / "held.txt").write_text(text("essays"), encoding="utf-8")
    given = {"calibration": "tiny.calib", "text": "held.txt", "work": "work", "results": "results.csv"}
    paths = [part for name, file in given.items() for part in (f"--{name}", str(tmp_path / file))]
    return ["ablation.py", str(tmp_path / "tiny.eqf"), *paths, "--tokens", "512", "--chunks", "1", "--types", "Q3_K"]


def test_steps_are_measured_once_beside_the_base(scripts, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*arguments, "--steps", ",".join(("corrected", *scripts.ablation.STEPS))])
    scripts.ablation.main()
    rows = {row["step"]: row for row in scripts.table_file.read(tmp_path / "results.csv")}
    assert rows.keys() == scripts.ablation.STEPS.keys()
    kl = {step: float(row["kl"]) for step, row in rows.items()}
    assert kl["feedback"] < 0.8 * kl["plain"] and kl["corrected"] < kl["layerwise"]
    assert len(set(kl.values())) == len(kl), "each step is another one"
    assert rows["corrected"]["change"] == "" and rows["plain"]["positions"] == "256"
    assert float(rows["plain"]["change"]) == pytest.approx(kl["plain"] / kl["corrected"] - 1, rel=1e-3)
    assert "| Q3_K | equalized |" in capsys.readouterr().out
    monkeypatch.setattr(scripts.ablation, "STEPS", dict.fromkeys(rows))  # nothing is quantized again
    scripts.ablation.main()


def test_the_model_itself_loses_nothing(scripts, arguments, tmp_path):
    (tmp_path / "work").mkdir()
    with open_file(tmp_path / "tiny.eqf") as file:
        held = scripts.ablation.Held(file, tmp_path / "held.txt", 1, 1, tmp_path / "work")
        divergences, same = held.measure(file)
        assert same.all() and not divergences.any() and divergences.shape == (256,)
        with pytest.raises(UsageError, match="give a longer one"):
            scripts.ablation.Held(file, tmp_path / "held.txt", 10**6, 1, tmp_path / "work")
    assert np.load(next((tmp_path / "work").glob("*.npy"))).shape == (1, 256, 2048)


def test_an_unknown_step_is_refused(scripts, arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*arguments, "--steps", "magic"])
    with pytest.raises(SystemExit):
        scripts.ablation.main()
    assert "unknown step magic" in capsys.readouterr().err
