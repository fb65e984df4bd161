"""Calls that are kept within their schemas, in formats with control tokens and without, and whatever is tried."""

import numpy as np
import pytest
from scripted import scripted_model

from edgeq.serve.engine import Engine
from edgeq.serve.tool_choice import openai_toolbox
from edgeq.talk.call_formats import TABLE
from edgeq.talk.calls import Call, calls_of, write
from edgeq.talk.conversing import Conversation
from edgeq.talk.parser import joined
from edgeq.talk.refused import Refused

pytest.importorskip("llguidance", reason="pip install llguidance")

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}, "times": {"enum": [1, 22]}},
            "required": ["word", "times"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TALK = [{"role": "user", "content": "So?"}]
CALLS = [Call("look_up", {"word": "zebra", "times": 22}, "abc123XYZ"), Call("clock", {}, "abc123XY0")]
ROWS = {row.name: row for row in TABLE}
# Names that are one token each, as in the models of these formats.
CONTROL = {
    "harmony": ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"),
    "solar": ("<|tool_calls|>", "<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"),
    "mistral with names": ("[TOOL_CALLS]", "[ARGS]"),
    "mistral": ("[TOOL_CALLS]",),
    "gemma 4": ("<|tool_call>", "<tool_call|>", '<|"|>'),
    "deepseek v3.1": ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
    "lfm2": ("<|tool_call_start|>", "<|tool_call_end|>"),
}


def template(row) -> str:
    """A template that tells of this format, lists tools and ends with "ANSWER"."""
    marks = "".join(row.known_by)
    end = ">>>" if row.answer else ""
    return f"{{# {marks} #}}{{{{ tools | tojson }}}}{{{{ messages[-1].content }}}}ANSWER{end}"


def engine_of(script: str, row, control=()) -> Engine:
    return Engine(scripted_model(script, template(row), control), None, 8)


def answered(engine: Engine, talk: Conversation, script: str = "", **options) -> list:
    """What is said in the answer: the model's, token by token."""
    more = engine.speaker.asked(talk)
    model, guide, parser = engine.model, more["grammar"], more["parser"]()
    options = {"temperature": 0, "max_tokens": 250, **options}
    if guide is not None:
        options["allowed"] = guide.guide(len(more["tokens"]))
    answer = model.generate_tokens(more["tokens"], **options)
    stream = model.tokenizer.stream(shown=more["shown"])
    said = [one for token in answer for one in parser.push(stream.push(token))]
    return joined([*said, *parser.push(stream.flush()), *parser.end()])


def named(said):
    return [(call.name, dict(call.arguments)) for call in calls_of(said)]


WANTED = [(call.name, dict(call.arguments)) for call in CALLS]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_calls_of_each_format_are_allowed(row):
    """What a model of this format writes by itself is what it may write, where it may call and where it must."""
    calls = CALLS[:1] if row.bare else CALLS
    script = write(row, calls)
    script = script.removeprefix(row.trigger) if row.answer else script
    engine = engine_of("", row, CONTROL.get(row.name, ()))
    assert engine.dialect.calls.name == row.name
    tokens = engine.encode(script, add_special=False)
    for choice in ("auto", "required"):
        asked = engine.speaker.asked(Conversation(TALK, openai_toolbox([TOOL, CLOCK], choice)))
        guide = asked["grammar"].guide(0)
        for i, token in enumerate(tokens):
            mask = guide(tokens[:i])
            assert mask is None or mask[token >> 3] >> (token & 7) & 1, engine.model.tokenizer.decode(tokens[:i])
        parser, stream = asked["parser"](), engine.model.tokenizer.stream(shown=asked["shown"])
        said = [one for token in tokens for one in parser.push(stream.push(token))]
        assert named(joined([*said, *parser.end()])) == WANTED[: len(calls)]


@pytest.mark.parametrize(
    "name", ["hermes", "mistral with names", "qwen coder", "glm", "gemma 4", "lfm2", "harmony", "llama 3"]
)
def test_arguments_that_leave_the_schema_are_led_back(name):
    row = ROWS[name]
    wrong = write(row, [Call("look_up", {"words": "a", "times": 5}, "abc123XYZ")])
    engine = engine_of(wrong, row, CONTROL.get(name, ()))
    for seed, choice in enumerate(("auto", "required")):
        box = openai_toolbox([TOOL], choice, parallel=False)
        said = answered(engine, Conversation(TALK, box), temperature=0.6, seed=seed, max_tokens=400)
        ((called, arguments),) = named(said)
        assert called == "look_up" and arguments.keys() == {"word", "times"} and arguments["times"] in (1, 22)


def test_a_model_that_says_other_things_calls_where_it_must():
    for name in ("hermes", "deepseek v3.1", "minimax", "command r7b", "llama 3"):
        engine = engine_of("I will not.", ROWS[name], CONTROL.get(name, ()))
        said = answered(engine, Conversation(TALK, openai_toolbox([CLOCK], "required", parallel=False)))
        assert named(said) == [("clock", {})], name


def guide_of(script: str, row=ROWS["hermes"], **more):
    engine = engine_of(script, row)
    asked = engine.speaker.asked(Conversation(TALK, openai_toolbox([TOOL, CLOCK], **more)))
    return asked["grammar"].guide(0)


def allowed(guide, text: str) -> set[str] | None:
    mask = guide(list(text.encode()))
    if mask is None:
        return None
    return {chr(token) for token in np.flatnonzero(np.unpackbits(mask, bitorder="little")) if token < 256}


def test_nothing_is_asked_before_a_call_begins():
    guide = guide_of("")
    for text in ("", "I look.", "I look <tool_cal"):
        assert allowed(guide, text) is None
    assert allowed(guide, "I look <tool_call>") == {"\n"}
    assert allowed(guide, '<tool_call>\n{"name": "') == {"l", "c"}
    assert allowed(guide, '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>') is None
    assert allowed(guide, '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call> <tool_call>') == {"\n"}


def test_tokens_that_were_tried_leave_no_trace():
    guide = guide_of("")
    before = 'A <tool_call>\n{"name": "'
    assert allowed(guide, before + "l") == {"o"} and allowed(guide, before) == {"l", "c"}
    assert allowed(guide, before + "c") == {"l"} and allowed(guide, "A <tool_call") is None
    assert allowed(guide, "A <tool_call ") is None and allowed(guide, before + "c") == {"l"}
    assert allowed(guide, "A") is None and allowed(guide, "A <tool_call>\n") == {"{"}


def test_an_answer_that_is_a_call_by_itself():
    guide = guide_of("", ROWS["llama 3"])
    assert allowed(guide, "") is None and allowed(guide, ' {"na') is None
    assert allowed(guide, ' {"name"') == {":"} and allowed(guide, '{"name": "') == {"l", "c"}
    assert allowed(guide, 'So: {"name"') is None and allowed(guide, '{"a"') is None
    mask = np.unpackbits(guide(list(b'{"name": "clock", "parameters": {}}')), bitorder="little")
    assert {*np.flatnonzero(mask)} == {259, 261}, "the tokens that end a text"


def test_what_follows_each_text_that_begins_a_call():
    guide = guide_of("", ROWS["harmony"])
    for text in ("to=functions.", "<|channel|>commentary to=functions.", "<|channel|>analysis to=functions."):
        assert allowed(guide, text) == {"l", "c"}
    assert allowed(guide, "<|channel|>commentary") is None


def test_one_call_alone():
    guide = guide_of("", parallel=False)
    text = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
    mask = np.unpackbits(guide(list(text.encode())), bitorder="little")
    assert {*np.flatnonzero(mask)} == {259, 261}, "the tokens that end a text"


def test_what_begins_like_a_call_and_goes_on_otherwise_in_one_token():
    """No token is forbidden before a trigger is whole: one that ends it, and goes on otherwise, begins no call."""
    row = ROWS["functools"]
    engine = engine_of("", row)
    guide = engine.speaker.asked(Conversation(TALK, openai_toolbox([CLOCK])))["grammar"].guide(0)
    assert allowed(guide, "functools") == {"["}
    assert allowed(guide, "functools!") is None, "as if it had been one token"


@pytest.mark.parametrize(
    ("name", "schema", "keyword"),
    [
        ("hermes", {"type": "string", "pattern": "a+"}, None),
        ("qwen coder", {"type": "string", "pattern": "a+"}, "pattern"),
        ("qwen coder", {"type": "integer", "minimum": 1}, None),
        ("lfm2", {"type": "array", "items": {"type": "integer", "minimum": 1}}, "minimum"),
        ("gemma 4", {"type": "string", "description": "a"}, None),
    ],
)
def test_a_strict_schema_is_followed_or_refused(name, schema, keyword):
    function = {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": schema}}}
    talk = Conversation(TALK, openai_toolbox([{"type": "function", "function": function}]))
    engine = engine_of("", ROWS[name])
    if keyword is None:
        assert engine.speaker.asked(talk)["grammar"] is not None
    else:
        with pytest.raises(Refused, match=f"f: {keyword} cannot be followed"):
            engine.speaker.asked(talk)
