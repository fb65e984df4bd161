"""Anthropic's API."""

import json

import pytest


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
    assert names[:3] == ["message_start", "content_block_start", "ping"]
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
        ({"tools": [{"name": "f"}]}, "tools"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
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
