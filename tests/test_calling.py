"""A short lane of tools/calling.py: calls of all kinds at once, each with the answer that it has alone."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
import calling


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["calling.py", "--threads", "3", *arguments])
    monkeypatch.setattr(calling, "CLOSES", 20)
    return calling.main()


def test_every_answer_is_the_right_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert run(monkeypatch, "--calls", "60") == 0
    said = capsys.readouterr().out
    assert "60 calls from 3 threads, 0 wrong" in said


def test_a_wrong_one_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    told = iter(range(1 << 30))
    monkeypatch.setattr(calling.Calls, "tokenize", lambda self, model, text, seed, lora: next(told))
    assert run(monkeypatch, "--calls", "60") == 1
    assert "and not" in capsys.readouterr().out
