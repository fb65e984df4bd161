"""Every feature of the supported architectures against transformers' logits, on random checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import random_checkpoints

from edgeq.container.reader import open_file
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DIGESTS = json.loads((GOLDEN / "manifest.json").read_text())["architectures"]


def logits(folder: Path, prompt: list[int], type: str = "F32") -> np.ndarray:
    path = folder / f"{type}.eqf"
    convert(folder, path, type, allow_no_tokenizer=True)
    with open_file(path) as file, Session(file, context=len(prompt), threads=2) as session:
        return session.eval(prompt, all_logits=True)


def test_every_case_has_golden_logits() -> None:
    assert DIGESTS.keys() == random_checkpoints.CASES.keys(), "run tools/make_golden.py"


@pytest.mark.parametrize("case", random_checkpoints.CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    assert random_checkpoints.digest(case) == DIGESTS[case], "another checkpoint: run tools/make_golden.py"
    prompt = random_checkpoints.make(case)[2]
    found = logits(random_checkpoints.write(case, tmp_path), prompt)
    expected = np.load(GOLDEN / "architectures.npz")[case]
    assert found.shape == expected.shape == (random_checkpoints.POSITIONS, expected.shape[1])
    assert np.abs(found - expected).max() <= 1e-3


@pytest.mark.parametrize("case", ["llama-ragged", "llama-head-dim", "llama-one-kv-head-of-7", "qwen2"])
def test_quantized_shapes(case: str, tmp_path: Path) -> None:
    """Eight bits follow the same path as all quantized types, over ragged rows, or fall back to F16."""
    prompt = random_checkpoints.make(case)[2]
    found = logits(random_checkpoints.write(case, tmp_path), prompt, "Q8_0")
    expected = np.load(GOLDEN / "architectures.npz")[case]
    spread = expected.std()
    assert np.sqrt(np.mean((found - expected) ** 2)) <= 0.1 * spread


@pytest.mark.parametrize(
    ("case", "key", "other"),
    [
        ("llama-rope-linear", "rope_scaling", None),
        ("llama-rope-llama3", "rope_scaling", None),
        ("llama", "rope_theta", 500000.0),
        ("mistral-window", "sliding_window", 32),
        ("mistral-window", "sliding_window", None),
        ("qwen2-window-from-layer-1", "max_window_layers", 3),
        ("qwen2-window-from-layer-1", "max_window_layers", 0),
        ("qwen2-window-from-layer-1", "use_sliding_window", False),
    ],
)
def test_features_are_seen(case: str, key: str, other: object, tmp_path: Path) -> None:
    """A feature left out would fail above: it changes the logits by far more than the tolerance."""
    folder = random_checkpoints.write(case, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: other}))
    found = logits(folder, random_checkpoints.make(case)[2])
    assert np.abs(found - np.load(GOLDEN / "architectures.npz")[case]).max() > 0.05
