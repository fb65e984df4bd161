"""The emulated lane's own logic: what it does where nothing can be fetched, where results differ, where time is up."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

sys.path.insert(1, str(ROOT / "tests" / "models"))

import arm_emulation  # noqa: E402  (tools/ is no package)
import emulated_results  # noqa: E402
import random_checkpoints  # noqa: E402

from edgeq.container.reader import open_file  # noqa: E402
from edgeq.kernels import catalog, library  # noqa: E402
from edgeq.quantize.pipeline import convert  # noqa: E402
from edgeq.runtime.session import Session  # noqa: E402


def test_one_line_where_nothing_can_be_fetched(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "arm_emulation.py"), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        arm_emulation.SKIPPED,
        "arm_emulation: skipped: apt-get is not installed here\n",
        "",
    )


@pytest.mark.parametrize(
    ("found", "wrong", "says"),
    [
        ({}, 0, ""),
        ({"logits m": np.float32([1, -0.0])}, 1, "DIFFERS: logits m"),
        ({"body": np.array("neon")}, 1, "the body neon was chosen"),
        ({"text n": np.zeros(1, np.uint8)}, 1, "other results"),
    ],
)
def test_differences_count(found, wrong, says, tmp_path, monkeypatch, capsys):
    expected = {"body": np.array("neon_i8mm"), "logits m": np.float32([1, 0])}
    np.savez(tmp_path / "expected.npz", **expected)
    monkeypatch.setattr(emulated_results, "results", lambda folder: expected | found)
    for name in ("numba", "llvmlite"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert emulated_results.compare(tmp_path, "neon_i8mm") == wrong
    assert says in capsys.readouterr().out


def test_nothing_begins_when_time_is_up(tmp_path):
    assert arm_emulation.check(tmp_path, "max", "bits", arm_emulation.Clock(0)) is None
    assert arm_emulation.Clock(1).left > 50 and not arm_emulation.Clock(None).is_over


def test_two_runs_do_not_share_a_cache(tmp_path):
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        arm_emulation.take(first, tmp_path, arm_emulation.Clock(None))
        with pytest.raises(arm_emulation.Unavailable, match="in use by another run"):
            arm_emulation.take(second, tmp_path, arm_emulation.Clock(0.001))


def test_models_ask_for_every_family_of_kernels(tmp_path):
    small = [model for model in emulated_results.MODELS if model.checkpoint not in emulated_results.REAL]
    asked: set[str] = set()
    for model in small:
        path = model.path(tmp_path)
        checkpoint = random_checkpoints.write(model.checkpoint, tmp_path / model.checkpoint)
        convert(checkpoint, path, model.type, allow_no_tokenizer=True)
        with open_file(path) as file, Session(file, context=16, threads=1, kv=model.kv) as session:
            asked |= set(session.plan.kernels)
    used_otherwise = {"encode", "rearrange", "execute", "probe"}  # by tests of their own, by every model, by doctor
    families = catalog.variants(library.chosen_isa()).keys() - used_otherwise
    assert {name.partition(":")[0] for name in asked} == families
    assert {"rope:f16", "rope:f32", "rope:q8_0", "norm:add", "elementwise:softcap"} <= asked
