"""Chats with tools and thoughts, from Python."""

import asyncio
import json

import pytest
from counting import counting_model
from scripted import PLAIN, THOUGHTS, TOOLS, scripted_model

import edgeq
from edgeq.talk.said import CallArguments, CallBegun, Text, Thought

pytest.importorskip("llguidance", reason="pip install llguidance")

ASK = [{"role": "user", "content": "How warm is it?"}]
CALL = 'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": 2}}\n</tool_call>'
GREEDY = {"temperature": 0}


def weather(city: str, days: int = 1) -> str:
    """Tells the weather of a city."""
    return f"{days} days of rain in {city}"


def clock() -> str:
    """Tells the time."""
    return "noon"


def test_a_function_is_called_and_the_conversation_goes_on():
    model = scripted_model(CALL)
    answer = model.chat(ASK, tools=[weather, clock], **GREEDY)
    assert answer.text == "I look." and answer.finish_reason == "eos" and answer.thinking == ""
    (call,) = answer.tool_calls
    assert call == edgeq.ToolCall("weather", {"city": "Köln", "days": 2}, call.id) and len(call.id) == 9
    said = answer.message
    assert said["role"] == "assistant" and said["content"] == "I look." and "reasoning_content" not in said
    (told,) = said["tool_calls"]
    assert told["id"] == call.id and json.loads(told["function"]["arguments"]) == call.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": {"warm": weather(**call.arguments)}}
    prompt = model.tokenizer.decode(model.chat_tokens([*ASK, said, result], tools=[weather, clock]))
    assert '"name": "weather", "arguments": {"city": "K' in prompt and '{"warm": "2 days of rain' in prompt
    assert "Tells the time" in prompt


def test_parts_come_as_they_are_known():
    answer = scripted_model(f"Hm.\n</think>\n{CALL}", THOUGHTS).chat(ASK, tools=[weather], **GREEDY)
    assert next(answer) == "I"
    parts = list(answer.parts())
    assert "".join(part.text for part in parts if isinstance(part, Thought)) == "Hm." == answer.thinking
    assert "".join(part.text for part in parts if isinstance(part, Text)) == "I look." == answer.text
    begun = next(part for part in parts if isinstance(part, CallBegun))
    assert (begun.index, begun.name) == (0, "weather") and begun.id == answer.tool_calls[0].id
    assert len([part for part in parts if isinstance(part, CallArguments)]) > 5, "piece by piece"
    assert list(answer.parts()) == parts and list(answer) == []
    assert answer.message["reasoning_content"] == "Hm."


def test_arguments_are_held_to_the_schema():
    wrong = '<tool_call>\n{"name": "weather", "arguments": {"town": 5, "days": "many"}}\n</tool_call>'
    (call,) = scripted_model(wrong).chat(ASK, 300, tools=[weather], **GREEDY).tool_calls
    assert isinstance(call.arguments["city"], str) and call.arguments.keys() <= {"city", "days"}


@pytest.mark.parametrize(("choice", "name"), [("required", "clock"), ("weather", "weather"), ("none", None)])
def test_which_tool(choice, name):
    answer = scripted_model("No.").chat(ASK, 300, tools=[clock, weather], tool_choice=choice, temperature=1, seed=2)
    assert {call.name for call in answer.tool_calls} == ({name} if name == "weather" else {*filter(None, [name])}) or (
        choice == "required" and answer.tool_calls
    )
    assert (answer.text == "No.") is (choice == "none")


def test_one_call_alone():
    model = scripted_model(f"{CALL}\n{CALL}")
    counts = [
        len(model.chat(ASK, tools=[weather], parallel_tool_calls=several, **GREEDY).tool_calls)
        for several in (True, False)
    ]
    assert counts == [2, 1]


def test_a_model_that_is_told_of_tools_by_us():
    model = scripted_model(CALL, PLAIN)
    assert [call.name for call in model.chat(ASK, tools=[weather], **GREEDY).tool_calls] == ["weather"]
    assert "Tells the weather" in model.tokenizer.decode(model.chat_tokens(ASK, tools=[weather]))


def test_a_call_that_is_cut_is_none():
    answer = scripted_model(CALL).chat(ASK, 60, tools=[weather], **GREEDY)
    assert answer.tool_calls == [] and answer.finish_reason == "max_tokens" and answer.text == "I look."


def test_thoughts_are_apart_without_tools_too():
    model = scripted_model("Rain?\n</think>\n\nWet.", THOUGHTS)
    answer = model.chat(ASK, **GREEDY)
    assert "".join(answer) == "Wet." == answer.text and answer.thinking == "Rain?"
    assert repr(answer) == "<edgeq.ChatAnswer 'Wet.': eos>"
    (batched,) = model.batch([ASK], **GREEDY)
    assert batched.text == "Wet." and batched.thinking == "Rain?"

    async def pieces():
        return [piece async for piece in model.achat(ASK, tools=[weather], **GREEDY)]

    assert "".join(asyncio.run(pieces())) == "Wet." and all(asyncio.run(pieces()))


def test_plain_answers_are_as_they_are():
    answer = counting_model().chat([{"role": "user", "content": "a"}], 3, **GREEDY)
    assert list(answer.parts()) == [Text(";"), Text("<"), Text("=")] and answer.message["content"] == ";<="
    assert answer.tool_calls == [] and answer.thinking == ""


def test_an_answer_of_a_schema():
    schema = {"type": "object", "properties": {"n": {"enum": [12, 345]}}, "required": ["n"], "maxProperties": 1}
    answer = scripted_model("Well.").chat(ASK, 60, schema={**schema, "additionalProperties": False}, temperature=1)
    assert json.loads(answer.text)["n"] in (12, 345)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": [weather, weather]}, "two that are called 'weather'"),
        ({"tools": [weather], "tool_choice": "sun"}, "'sun', which is not among tools"),
        ({"tool_choice": "required"}, "tools is empty"),
        ({"tools": [weather], "tool_choice": 3}, "tool_choice is 3"),
        ({"schema": {"not": {}}}, "cannot be followed"),
        ({"schema": {"type": "object"}, "allowed": lambda ids: None}, "leave out one"),
    ],
)
def test_what_cannot_be_followed(options, said):
    with pytest.raises(edgeq.UsageError, match=said):
        scripted_model("").chat(ASK, 5, **options)


def test_tools_without_llguidance(monkeypatch):
    monkeypatch.setattr("edgeq.talk.grammar.find_spec", lambda name: None)
    with pytest.raises(edgeq.UsageError, match="llguidance is missing"):
        scripted_model("", TOOLS).chat(ASK, tools=[weather])
