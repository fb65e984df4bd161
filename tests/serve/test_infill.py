"""Filling in the middle, of models that have tokens for it."""

import pytest
from scripted import FIRST_CONTROL, PLAIN, scripted_model
from serving import wait_until

MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


@pytest.fixture
def served(start):
    served = start({"code": lambda say: scripted_model("x", PLAIN, MARKS), "text": lambda say: scripted_model("x")})
    wait_until(lambda: served.roster.ready)
    return served


def test_the_prompt_holds_both_sides(served, monkeypatch):
    seen = []
    engine = served.roster.entries["code"].engine
    generate = engine.model.tokens_after
    monkeypatch.setattr(
        engine.model, "tokens_after", lambda tokens, *a, **k: seen.append(tokens) or generate(tokens, *a, **k)
    )
    fields = {"prompt": "ab<|fim_middle|>", "suffix": "c", "max_tokens": 1, "model": "code"}
    assert served.post("/v1/completions", **fields).status_code == 200
    assert served.post("/api/generate", **fields, stream=False).status_code == 200
    first, second, third = range(FIRST_CONTROL, FIRST_CONTROL + 3)
    before = [ord(letter) for letter in "ab<|fim_middle|>"]
    assert seen == [[first, *before, second, ord("c"), third]] * 2, "names of control tokens within a text are text"


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
def test_a_model_without_such_tokens_refuses_by_name(served, path):
    answer = served.post(path, model="text", prompt="a", suffix="b")
    assert answer.status_code == 400 and "suffix is not supported: this model has no tokens" in answer.text
    assert served.post(path, model="text", prompt="a", suffix="", stream=False, max_tokens=1).status_code == 200


def test_token_ids_have_no_suffix(served):
    assert served.post("/v1/completions", model="code", prompt=[97], suffix="b").json()["error"]["param"] == "suffix"
