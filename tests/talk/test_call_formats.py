"""What is written in a format is read as what it was, however it comes."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import chat_cases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told import told, told_however_cut

from edgeq.errors import TemplateError
from edgeq.talk.call_formats import GENERIC, TABLE
from edgeq.talk.calls import Call, calls_of, write
from edgeq.talk.dialect import Dialect
from edgeq.talk.parser import Parser
from edgeq.talk.said import CallArguments, CallBegun, Text
from edgeq.text.chat import ChatTemplate

ARGUMENTS = {
    "city": 'Zürich <b> "x" \\ \'',
    "days": 2,
    "hours": [6.5, {"a": "b"}],
    "now": True,
    "text": " a\nb ",
}
KINDS = {"city": "string", "days": "integer", "now": "boolean", "text": "string"}
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": kind, "description": name} for name, kind in KINDS.items()}
    | {"hours": {"type": "array", "description": "", "items": {"type": "number"}}},
    "required": [],
}
SCHEMAS = {"look_up": SCHEMA, "clock": {"type": "object", "properties": {}, "required": []}}
CALLS = [Call("look_up", ARGUMENTS, "abc123XYZ"), Call("clock", {}, "abc123XY0")]
# Templates that do not write a call at all, or fail on one in transformers' sandbox too, or do so without all of it.
WRITE_NO_CALLS = {
    *("granite-3.0-instruct.jinja", "granite-3.0-instruct.json", "llama.cpp/HuggingFaceTB-SmolLM3-3B.jinja"),
    *("llama.cpp/Kimi-K2-Instruct.jinja", "llama.cpp/Kimi-K2-Thinking.jinja", "llama.cpp/LFM2-8B-A1B.jinja"),
    *("llama.cpp/LFM2.5-Instruct.jinja", "llama.cpp/deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja"),
    *("llama.cpp/ibm-granite-granite-3.3-2B-Instruct.jinja", "llama.cpp/llama-cpp-deepseek-r1.jinja"),
    *("llama.cpp/llama-cpp-rwkv-world.jinja", "llama.cpp/google-gemma-2-2b-it.jinja"),
    "llama.cpp/microsoft-Phi-3.5-mini-instruct.jinja",
}


def named(calls) -> list[tuple[str, Any]]:
    return [(call.name, dict(call.arguments)) for call in calls]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.name}, {row.known_by[0]}")
@pytest.mark.parametrize("calls", [CALLS[:1], CALLS], ids=["one", "two"])
def test_calls_are_read_as_they_were_written(row, calls):
    before = "" if row.bare else "Let me look.\n\n"
    said = told_however_cut(lambda: Parser(calls=row, schemas=SCHEMAS), before + write(row, calls), 11)
    assert named(calls_of(said)) == named(calls)
    assert [one for one in said if isinstance(one, Text)] == [Text("Let me look.")][: len(before)]


NAMES = st.text("abcdefgh_", min_size=1, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text("ab \"'\\{}[]<>,:\nü", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.data())
def test_any_arguments(arguments, data):
    row = data.draw(st.sampled_from(TABLE))
    kinds = {name: {"type": "string"} for name, value in arguments.items() if isinstance(value, str)}
    if any(isinstance(v, str) and ("\n" in (v[:1], v[-1:]) or "</" in v) for v in arguments.values()):
        return  # which tags do not keep
    text = write(row, [Call("f", arguments, "abc123XYZ")])
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=5))})
    parts = [text[a:b] for a, b in pairwise(cuts)]
    said = told(Parser(calls=row, schemas={"f": {"properties": kinds}}), parts)
    assert named(calls_of(said)) == [("f", arguments)]


def test_every_template_that_writes_calls_is_understood(shared_data: Path):
    """A history with calls, as the template writes it, cut at every character."""
    silent, wrong = set(), {}
    for name, source, _ in chat_cases.templates(shared_data):
        dialect = Dialect(ChatTemplate(source, chat_cases.SPECIAL_TOKENS))
        if "tool" not in source:
            assert dialect.calls is GENERIC and not dialect.lists_tools
        elif dialect.writes_calls is None:
            silent.add(name)
        else:
            found = read_back(dialect)
            if found not in (named(CALLS), named(CALLS[:1])):
                wrong[name] = found
    assert not wrong
    assert silent <= WRITE_NO_CALLS


def read_back(dialect: Dialect) -> list[tuple[str, Any]]:
    """The calls of a history, rendered and read again, cut at every character."""
    tools = [
        {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}
        for name, schema in SCHEMAS.items()
    ]
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in CALLS
    ]
    for many in (calls, calls[:1]):
        talk = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": "", "tool_calls": many}]
        try:
            text = dialect.render(talk, False, tools=tools).partition("QUESTION")[2]
        except TemplateError as error:
            assert "single tool-calls" in str(error)
            continue
        text = text[text.find("{") :] if dialect.calls.bare else text
        said = told_however_cut(lambda: Parser(calls=dialect.calls, schemas=SCHEMAS), text, 9)
        return named(calls_of(said))
    return []


def test_arguments_come_as_they_are_written():
    parser = Parser(calls=GENERIC)
    assert parser.push('<tool_call>\n{"name": "f", "arguments": {"a": "x') == [
        CallBegun(0, "f"),
        CallArguments(0, '{"a": "x'),
    ]
    assert parser.push("yz") == [CallArguments(0, "yz")]
    assert parser.push('"}}\n</tool_call>') == [CallArguments(0, '"}')] and not parser.end()


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\nnothing</tool_call> after",
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        "a <tool_call",
        "<tool_call>",
        '<tool_call>{"name": "f g", "arguments": {}}',
    ],
)
def test_what_is_no_call_is_a_part_of_the_answer(text):
    assert told_however_cut(lambda: Parser(calls=GENERIC), text) == [Text(text)]


def test_members_in_any_order_and_arguments_within_a_text():
    text = '<tool_call>{"id": 5, "arguments": "{\\"a\\": 1}", "name": "f"}</tool_call>'
    assert named(calls_of(told_however_cut(lambda: Parser(calls=GENERIC), text))) == [("f", {"a": 1})]


def test_an_answer_that_is_an_object_is_no_call():
    llama = next(row for row in TABLE if row.bare)
    for text in ('{"city": "Paris"}', ' {"a": 1} and', "{", "no {", '{"x'):
        assert told_however_cut(lambda: Parser(calls=llama), text) == [Text(text)]


def test_a_call_that_is_cut_off_is_told_as_far_as_it_goes():
    said = told_however_cut(lambda: Parser(calls=GENERIC), '<tool_call>{"name": "f", "arguments": {"a": [1')
    assert said == [CallBegun(0, "f"), CallArguments(0, '{"a": [1')]
