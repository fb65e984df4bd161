"""Adapters made by peft now, of every way in which checkpoints keep matrices; where torch and peft are installed."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import random_checkpoints
from adapter_cases import CASES, TOKENS, Case

import edgeq
from edgeq.conversion.conversion import convert

pytest.importorskip("peft", reason="peft is not installed: pip install torch transformers peft")
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

import make_adapters

EVERY = {"r": 3, "lora_alpha": 7, "target_modules": "all-linear"}


@pytest.mark.parametrize(
    "checkpoint", ["qwen2", "qwen3", "gemma3", "gpt-neox", "falcon", "lfm2", "olmo2", "phi", "starcoder2", "stablelm"]
)
def test_every_linear_layer(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, checkpoint, Case(checkpoint, EVERY))
    model = make_adapters.make(checkpoint, tmp_path / "adapter")
    expected = make_adapters.logits(model, checkpoint)
    prompt = random_checkpoints.make(checkpoint)[2][:TOKENS]
    with tempfile.TemporaryDirectory() as folder:
        source = random_checkpoints.write(checkpoint, Path(folder))
        convert(source, tmp_path / "base.eqf", "F32", allow_no_tokenizer=True)
        convert(source, tmp_path / "merged.eqf", "F32", allow_no_tokenizer=True, lora=[tmp_path / "adapter"])
    with edgeq.load(tmp_path / "base.eqf", threads=1) as base:
        plain, adapted = base.logits(prompt), base.logits(prompt, lora=[tmp_path / "adapter"])
    with edgeq.load(tmp_path / "merged.eqf", threads=1) as merged:
        other = merged.logits(prompt)
    assert np.abs(adapted - expected).max() <= 1e-4
    assert np.abs(other - expected).max() <= 1e-4
    assert np.abs(plain - expected).max() > 0.5
