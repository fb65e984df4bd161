"""Answers that follow a schema."""

import json

import numpy as np
import pytest
import small_tokenizers as small
from serving import hello

from edgeq.errors import EdgeqError
from edgeq.serve.failures import Failure
from edgeq.serve.grammar import Grammars
from edgeq.text.tokenizer import load_tokenizer

pytest.importorskip("llguidance", reason="pip install llguidance")

VOCAB = 270


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(load_tokenizer(small.byte_level_assets(), "it"), VOCAB)


def after(guide, text: str) -> set[int]:
    """Tokens that may follow a text behind a prompt of two tokens."""
    bits = np.unpackbits(guide([5, 5, *text.encode()]), bitorder="little", count=VOCAB)
    return {int(token) for token in np.flatnonzero(bits)}


def test_tokens_that_may_come_next(grammars):
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [12, 13]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    guide = grammars.compile(schema, "it").guide(2)
    assert ord("{") in after(guide, "") and ord("a") not in after(guide, "")
    assert after(guide, '{"a":1') == {ord("2"), ord("3")}
    assert ord("}") in after(guide, '{"a":12') and ord("4") not in after(guide, '{"a":12')
    assert after(guide, '{"a":12}') == {small.IM_END, small.END_OF_TEXT} & after(guide, '{"a":12}') != set()


def test_tokens_that_were_tried_are_taken_back(grammars):
    guide = grammars.compile({"enum": [12, 345]}, "it").guide(2)
    assert after(guide, "1") == {ord("2")}
    assert after(guide, "34") == {ord("5")}
    assert after(guide, "3") == {ord("4")}
    assert after(guide, "") == {ord("1"), ord("3")}


def test_texts_do_not_disturb_each_other(grammars):
    grammar = grammars.compile({"enum": [12, 345]}, "it")
    one, other = grammar.guide(2), grammar.guide(2)
    assert after(one, "1") == {ord("2")} and after(other, "3") == {ord("4")} and after(one, "1") == {ord("2")}


def test_a_text_that_leaves_the_grammar(grammars):
    with pytest.raises(EdgeqError, match="cannot follow its schema"):
        after(grammars.compile({"enum": [12]}, "it").guide(2), "9")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {}}, "not"),
        ({"type": "string", "format": "weird"}, "weird"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "strin"}, "strin"),
        ({"$ref": "http://example.com/schema"}, "does not fetch"),
        ({"enum": ["x" * 300_000]}, "characters"),
    ],
)
def test_what_cannot_be_followed_is_named(grammars, schema, said):
    with pytest.raises(Failure, match=said) as refused:
        grammars.compile(schema, "it")
    assert refused.value.status == 400 and refused.value.param == "it"


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
