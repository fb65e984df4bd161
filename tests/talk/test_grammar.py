"""Answers that follow a schema."""

import numpy as np
import pytest
import small_tokenizers as small

from edgeq.errors import EdgeqError
from edgeq.talk.grammar import Grammars
from edgeq.talk.refused import Refused
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
    with pytest.raises(Refused, match=said) as refused:
        grammars.compile(schema, "it")
    assert refused.value.field == "it"


def test_white_space_ends(grammars):
    """One space, or a line break and what indents a line; also where a schema asks for more."""
    guide = grammars.compile({"type": "object", "x-guidance": {"whitespace_flexible": True}}, "it").guide(2)
    space, line, tab = map(ord, " \n\t")
    assert {space, line, ord("}")} <= after(guide, "{")
    assert not {space, line, tab} & after(guide, "{ ")
    assert space in after(guide, "{\n" + " " * 23) and not {space, line, tab} & after(guide, "{\n" + " " * 24)
    assert tab in after(guide, "{\n\t") and not {space, line, tab} & after(guide, "{\n" + "\t" * 6)
    assert ord('"') in after(guide, '{\n  "a": {\n    "b": [\n      1,\n      2\n    ]\n  },\n  ')
