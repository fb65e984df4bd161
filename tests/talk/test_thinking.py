"""Thoughts and answers told apart."""

import pytest
from told import told_however_cut

from edgeq.talk.call_formats import TABLE as FORMATS
from edgeq.talk.parser import Parser
from edgeq.talk.said import CallArguments, CallBegun, Text, Thought
from edgeq.talk.thinking import NONE, TABLE, thinking_of

PLAIN = TABLE[-1]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.opened)
def test_each_way_to_mark_thoughts(row):
    text = f"{row.opened}\nA thought. \n\n{row.closed}\n\nThe answer.\n"
    assert told_however_cut(lambda: Parser(row), text) == [Thought("A thought."), Text("The answer.\n")]
    assert row.opened_by(f"<|user|>hi<|assistant|>{row.opened}\n")
    assert not row.opened_by(f"{row.opened}{row.closed}\n\n")
    assert thinking_of(f"{{{{ '{row.known_by[0]}' }}}}") is row


def test_thoughts_that_the_prompt_opened():
    text = "A thought.\n</think>\n\nThe answer."
    said = told_however_cut(lambda: Parser(PLAIN, thoughts_first=True), text)
    assert said == [Thought("A thought."), Text("The answer.")]
    assert told_however_cut(lambda: Parser(PLAIN, thoughts_first=True), "endless ") == [Thought("endless")]


@pytest.mark.parametrize("text", ["", " a\n\nb \n", "\n", "<think", "a < b", "a </think> b"])
def test_an_answer_alone_is_left_as_it_is(text):
    assert told_however_cut(lambda: Parser(PLAIN), text) == ([Text(text)] if text else [])
    assert told_however_cut(lambda: Parser(NONE), text) == ([Text(text)] if text else [])


def test_the_channels_of_gpt_oss():
    text = (
        "<|channel|>analysis<|message|>They ask.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        "<|end|><|start|>assistant<|channel|>commentary to=functions.look_up <|constrain|>json<|message|>"
        '{"a": 1}<|call|>'
    )
    harmony = next(row for row in FORMATS if row.name == "harmony")
    assert told_however_cut(lambda: Parser(TABLE[0], harmony), text) == [
        Thought("They ask."),
        Text("I look."),
        CallBegun(0, "look_up"),
        CallArguments(0, '{"a": 1}'),
        Text("<|call|>"),
    ]
