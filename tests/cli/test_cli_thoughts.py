"""Thoughts are shown apart from the answer, and are no part of what is kept."""

import json

import pytest
from scripted import THOUGHTS, scripted_model


@pytest.fixture(autouse=True)
def model(monkeypatch):
    monkeypatch.setattr(
        "edgeq.loading.load", lambda path, **options: scripted_model("Rain?\n</think>\n\nWet.", THOUGHTS)
    )


def test_run(edgeq):
    outcome = edgeq("run", "m.eqf", "So?", "--temperature", 0)
    assert (outcome.code, outcome.out, outcome.err) == (0, "Wet.\n", "Rain?\n\n")
    facts = json.loads(edgeq("run", "m.eqf", "So?", "--temperature", 0, "--json").out)
    assert facts["text"] == "Wet." and facts["thinking"] == "Rain?"


def test_thoughts_that_are_cut(edgeq):
    outcome = edgeq("run", "m.eqf", "So?", "--temperature", 0, "--max-tokens", 3)
    assert outcome.out == "\n" and outcome.err.startswith("Rai\nedgeq: the answer is empty")


def test_chat(edgeq, tmp_path):
    saved = tmp_path / "talk.json"
    outcome = edgeq("chat", "m.eqf", "--temperature", 0, stdin=f"So?\n/save {saved}\n")
    assert outcome.out.startswith("Wet.\n") and "Rain?" in outcome.err
    assert json.loads(saved.read_text())[1] == {"role": "assistant", "content": "Wet."}
