"""Answers in JSON, of a schema if one is given, as each API asks for them."""

import json

import pytest
from serving import hello

pytest.importorskip("llguidance", reason="pip install llguidance")

NUMBERS = {
    "type": "array",
    "items": {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 99},
    "minItems": 2,
    "maxItems": 3,
}


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_follows_its_schema(served, seed):
    described = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": NUMBERS}}
    fields = hello(response_format=described, max_tokens=60, temperature=1, seed=seed)
    choice = served.post("/v1/chat/completions", **fields).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    numbers = json.loads(choice["message"]["content"])
    assert 2 <= len(numbers) <= 3 and all(10 <= number <= 99 and number % 7 == 0 for number in numbers)


def test_ollama_s_format(served):
    talk = [{"role": "user", "content": "a"}]
    options = {"temperature": 1, "seed": 2, "num_predict": 60}
    fields = {"model": "counting", "messages": talk, "stream": False, "options": options}
    assert json.loads(served.post("/api/chat", **fields, format={"enum": [[1], [2, 3]]}).json()["message"]["content"])
    assert served.post("/api/chat", **fields, format="json").json()["message"]["content"].lstrip().startswith("{")


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"schema": 5}},
        {"type": "json_schema", "json_schema": {"schema": {"not": {}}}},
        {"type": "yaml"},
        "json",
    ],
)
def test_formats_that_there_are_not(served, wanted):
    answer = served.post("/v1/chat/completions", **hello(response_format=wanted))
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "response_format"
