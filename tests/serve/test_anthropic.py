"""Anthropic's API."""

import json

import pytest
from scripted import THOUGHTS, scripted_model
from serving import serving, wait_until


def ask(**more):
    talk = [{"role": "user", "content": "a"}]
    return {"model": "counting", "max_tokens": 3, "temperature": 0, "messages": talk, **more}


def test_a_whole_message(served):
    served.post("/v1/messages", **ask())
    answer = served.post("/v1/messages", **ask()).json()
    assert answer["content"] == [{"type": "text", "text": ";<="}] and answer["role"] == "assistant"
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("max_tokens", None)
    assert answer["usage"] == {
        "input_tokens": 1,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 5,
        "output_tokens": 3,
    }


def test_a_streamed_message(served):
    answer = served.post("/v1/messages", **ask(stream=True))
    frames = [frame.splitlines() for frame in answer.text.strip().split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in frames]
    data = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert names == [one["type"] for one in data]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(one["delta"]["text"] for one in data if one["type"] == "content_block_delta") == ";<="
    assert data[-2]["delta"]["stop_reason"] == "max_tokens" and data[-2]["usage"]["output_tokens"] == 3


def test_stop_sequences(served):
    answer = served.post("/v1/messages", **ask(max_tokens=20, stop_sequences=["zz", ">?", ">?@"])).json()
    assert answer["content"][0]["text"] == ";<="
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", ">?")


def test_blocks_and_system(served):
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=abcde;\nbe"},
        {"type": "text", "text": "brief", "cache_control": {"type": "ephemeral"}},
    ]
    talk = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    answer = served.post("/v1/messages/count_tokens", **ask(system=system, messages=talk)).json()
    assert answer == {"input_tokens": len("s:be\nbrief|u:a\nb|a:")}
    assert served.post("/v1/messages/count_tokens", **ask(system="x")).json() == {"input_tokens": len("s:x|u:a|a:")}


def test_an_answer_that_has_begun_goes_on(served):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}]
    assert served.post("/v1/messages", **ask(messages=talk)).json()["content"][0]["text"] == "def"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [{"name": "f", "type": "web_search_20250305"}]}, "web_search"),
        ({"tools": [{"name": "f g"}]}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "perhaps"}}, "thinking"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "name": "f"}]}]}, "tool_use"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"system": 5}, "system"),
        ({"top_p": 2}, "top_p"),
        ({"messages": [{"role": "user", "content": "a" * 100}]}, "64 tokens"),
    ],
)
def test_what_is_refused_by_name(served, fields, named):
    answer = served.post("/v1/messages", **ask(**fields))
    assert answer.status_code == 400 and answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error" and named in answer.json()["error"]["message"]


def test_what_changes_nothing_is_passed_over(served):
    fields = {"metadata": {"user_id": "u"}, "thinking": {"type": "disabled"}, "tools": [], "service_tier": "auto"}
    assert served.post("/v1/messages", **ask(**fields)).status_code == 200


TOOL = {
    "name": "get_weather",
    "description": "The weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
SAID = (
    'They ask.\n</think>\n\nI look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
)


@pytest.fixture(scope="module")
def caller():
    """A model that thinks, says something and calls a tool."""
    pytest.importorskip("llguidance", reason="pip install llguidance")
    models = {
        "calls": lambda say: scripted_model(SAID, THOUGHTS),
        "long": lambda say: scripted_model("and " * 99, THOUGHTS),
    }
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
        yield served


def question(**more):
    return {"max_tokens": 300, "temperature": 0, "messages": [{"role": "user", "content": "Paris?"}], **more}


def test_a_tool_is_used(caller):
    answer = caller.post("/v1/messages", **question(tools=[TOOL])).json()
    thinking, text, use = answer["content"]
    assert thinking == {"type": "thinking", "thinking": "They ask.", "signature": ""}
    assert text == {"type": "text", "text": "I look."}
    assert (use["type"], use["name"], use["input"]) == ("tool_use", "get_weather", {"city": "Paris"})
    assert answer["stop_reason"] == "tool_use"


def test_a_stream_has_the_same_blocks(caller):
    whole = caller.post("/v1/messages", **question(tools=[TOOL])).json()
    text = caller.post("/v1/messages", **question(tools=[TOOL], stream=True)).text
    data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    starts = [one["content_block"]["type"] for one in data if one["type"] == "content_block_start"]
    assert starts == [block["type"] for block in whole["content"]]
    assert [one["index"] for one in data if one["type"] == "content_block_stop"] == [0, 1, 2]
    json_parts = (one["delta"].get("partial_json", "") for one in data if one["type"] == "content_block_delta")
    assert json.loads("".join(json_parts)) == {"city": "Paris"}
    assert data[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_budget_of_thoughts(caller):
    fields = question(model="long", thinking={"type": "enabled", "budget_tokens": 10}, max_tokens=60)
    thinking, text = caller.post("/v1/messages", **fields).json()["content"]
    assert len(thinking["thinking"]) in (9, 10) and text["text"]
    assert caller.post("/v1/messages", **{**fields, "thinking": {"type": "disabled"}}).json()["content"][0]["text"]


def test_what_a_tool_said(caller):
    talk = [
        {"role": "user", "content": "Paris?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "They ask.", "signature": "x"},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "21"}]},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    fields = question(messages=talk, tools=[TOOL])
    counted = caller.post("/v1/messages/count_tokens", **fields).json()["input_tokens"]
    answer = caller.post("/v1/messages", **fields).json()
    usage = answer["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted
    assert answer["content"][1]["text"] == "I look."
    talk[2]["content"][0] |= {"is_error": True, "content": "no"}
    assert caller.post("/v1/messages", **fields).status_code == 200


@pytest.mark.parametrize(
    ("choice", "calls"),
    [({"type": "any"}, True), ({"type": "tool", "name": "get_weather"}, True), ({"type": "none"}, False)],
)
def test_tool_choice(caller, choice, calls):
    answer = caller.post("/v1/messages", **question(tools=[TOOL], tool_choice=choice)).json()
    assert (answer["content"][-1]["type"] == "tool_use") is calls


def test_the_official_client_uses_tools(caller):
    anthropic = pytest.importorskip("anthropic", reason="pip install anthropic")
    with anthropic.Anthropic(base_url=caller.url, api_key="any", max_retries=0) as client:
        fields = {"model": "calls", "max_tokens": 300, "tools": [TOOL], "extra_body": {"temperature": 0}}
        talk = [{"role": "user", "content": "Paris?"}]
        with client.messages.stream(messages=talk, **fields) as stream:
            message = stream.get_final_message()
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert message.content[2].input == {"city": "Paris"} and message.stop_reason == "tool_use"
        result = {"type": "tool_result", "tool_use_id": message.content[2].id, "content": "21"}
        talk += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        assert client.messages.create(messages=talk, **fields).content[1].text == "I look."
