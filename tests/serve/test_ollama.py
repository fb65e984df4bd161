"""Ollama's API."""

import json

import pytest
from scripted import PLAIN, THOUGHTS, scripted_model
from serving import serving, wait_until

from edgeq.serve.ollama_texts import with_ids


def lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def ask(**more):
    return {
        "model": "counting",
        "messages": [{"role": "user", "content": "a"}],
        "options": {"temperature": 0, "num_predict": 3},
        **more,
    }


def test_a_chat_in_lines(served):
    answer = served.post("/api/chat", **ask())
    assert answer.headers["content-type"] == "application/x-ndjson"
    *parts, last = lines(answer)
    assert "".join(part["message"]["content"] for part in parts) == ";<=" and not any(part["done"] for part in parts)
    assert last["done"] and last["done_reason"] == "length" and last["message"] == {"role": "assistant", "content": ""}
    assert last["eval_count"] == 3 and last["prompt_eval_count"] == 6
    assert last["total_duration"] >= last["eval_duration"] > 0 and isinstance(last["total_duration"], int)


def test_a_chat_as_a_whole(served):
    answer = served.post("/api/chat", **ask(stream=False, keep_alive="5m")).json()
    assert answer["message"]["content"] == ";<=" and answer["done"] and answer["model"] == "counting"


def test_generate(served):
    options = {"temperature": 0, "num_predict": 3}
    fields = {"model": "counting:latest", "stream": False, "options": options}
    assert served.post("/api/generate", **fields, prompt="a").json()["response"] == ";<="
    assert served.post("/api/generate", **fields, prompt="a", raw=True).json()["response"] == "bcd"
    answer = served.post("/api/generate", **fields, prompt="a", system="s").json()
    assert answer["prompt_eval_count"] == len("s:s|u:a|a:")
    assert (
        "".join(
            one["response"] for one in lines(served.post("/api/generate", **{**fields, "stream": True}, prompt="a"))
        )
        == ";<="
    )


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_one_that_says_nothing_has_the_model_loaded(served, path):
    answer = served.post(path, model="counting").json()
    assert answer["done"] and answer["done_reason"] == "load"


def test_options(served):
    options = {"temperature": 0, "num_predict": -1, "stop": ["?"], "num_ctx": 4096, "num_gpu": 1, "repeat_penalty": 1.0}
    answer = served.post("/api/chat", **ask(stream=False, options=options)).json()
    assert answer["message"]["content"] == ";<=>" and answer["done_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"format": 5}, "format"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"think": True}, "think"),
        ({"options": {"tfs_z": 0.5}}, "tfs_z"),
        ({"options": {"temperature": -1}}, "temperature"),
        ({"options": {"num_predict": "x"}}, "max_tokens"),
        ({"options": {"stop": 5}}, "stop"),
        ({"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}, "images"),
        ({"messages": 5}, "messages"),
        ({"model": 5}, "model"),
    ],
)
def test_what_is_refused_by_name(served, fields, named):
    answer = served.post("/api/chat", **ask(**fields))
    assert answer.status_code == 400 and answer.json().keys() == {"error"} and named in answer.json()["error"]


def test_a_model_that_there_is_not(served):
    answer = served.post("/api/chat", **ask(model="other"))
    assert answer.status_code == 404 and answer.json() == {
        "error": "there is no model 'other': here are counting, slow"
    }


def test_what_is_told_of_models(served):
    rows = served.http.get("/api/tags").json()["models"]
    assert [row["name"] for row in rows] == ["counting", "slow"] and len(rows[0]["digest"]) == 64
    assert rows[0]["details"]["family"] == "llama" and rows[0]["details"]["quantization_level"] == "Q4_0"
    assert [row["model"] for row in served.http.get("/api/ps").json()["models"]] == ["counting", "slow"]
    shown = served.post("/api/show", model="counting:latest").json()
    assert "completion" in shown["capabilities"] and shown["model_info"]["llama.context_length"] == 64
    assert shown["template"].startswith("{% for")
    assert served.post("/api/show").status_code == 400 and served.post("/api/show", model="x").status_code == 404
    assert served.http.get("/api/version").json()["version"]


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TALK = [{"role": "user", "content": "Paris?"}]


@pytest.fixture(scope="module")
def caller():
    """A model that thinks, says something and calls a tool twice, and one without thoughts."""
    pytest.importorskip("llguidance", reason="pip install llguidance")
    models = {
        "calls": lambda say: scripted_model(f"They ask.\n</think>\n\nI look.\n{CALL}\n{CALL}", THOUGHTS),
        "plain": lambda say: scripted_model("Warm.", PLAIN),
    }
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
        yield served


def test_a_tool_is_called(caller):
    fields = {"model": "calls", "messages": TALK, "tools": [TOOL], "options": {"temperature": 0, "num_predict": 400}}
    answer = caller.post("/api/chat", **fields, stream=False).json()
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    assert answer["message"] == {
        "role": "assistant",
        "content": "I look.",
        "thinking": "They ask.",
        "tool_calls": [call, call],
    }
    assert answer["done_reason"] == "stop"
    parts = lines(caller.post("/api/chat", **fields))
    assert [one["message"]["tool_calls"] for one in parts if "tool_calls" in one["message"]] == [[call], [call]]
    assert "".join(one["message"].get("thinking", "") for one in parts) == "They ask."
    assert "".join(one["message"]["content"] for one in parts) == "I look." and parts[-1]["done"]


def test_thinking_is_asked_for(caller):
    options = {"temperature": 0, "num_predict": 30}
    for think in (True, "high"):
        answer = caller.post("/api/chat", model="plain", messages=TALK, think=think, options=options)
        assert answer.status_code == 400 and "does not support thinking" in answer.json()["error"]
    answer = caller.post("/api/generate", model="calls", prompt="Paris?", options=options, stream=False).json()
    assert answer["thinking"] == "They ask." and answer["response"].startswith("I look.")
    fields = {"model": "calls", "messages": TALK, "options": options, "stream": False}
    assert "thinking" not in caller.post("/api/chat", **fields, think=False).json()["message"]
    assert caller.post("/api/show", model="calls").json()["capabilities"][2:] == ["tools", "thinking"]
    assert caller.post("/api/show", model="plain").json()["capabilities"] == ["completion", "embedding"]


def test_calls_and_results_find_each_other():
    call = {"function": {"name": "f", "arguments": {}}}
    other = {"function": {"name": "g", "arguments": {}}}
    said = with_ids(
        [
            {"role": "assistant", "tool_calls": [call, other]},
            {"role": "tool", "tool_name": "g", "content": "1"},
            {"role": "tool", "content": "2"},
        ]
    )
    first, second = (one["id"] for one in said[0]["tool_calls"])
    assert first != second and [one["tool_call_id"] for one in said[1:]] == [second, first]
    assert [one["name"] for one in said[1:]] == ["g", "f"]


def test_the_official_client_uses_tools(caller):
    ollama = pytest.importorskip("ollama", reason="pip install ollama")

    def get_weather(city: str) -> str:
        """The weather.

        Args:
            city: where
        """
        return "21"

    client, options = ollama.Client(caller.url), {"temperature": 0, "num_predict": 400}
    answer = client.chat("calls", TALK, tools=[get_weather], think=True, options=options)
    assert answer.message.thinking == "They ask."
    assert [dict(call.function.arguments) for call in answer.message.tool_calls] == [{"city": "Paris"}] * 2
    talk = [*TALK, answer.message, {"role": "tool", "tool_name": "get_weather", "content": "21"}]
    assert client.chat("calls", talk, tools=[get_weather], options=options).message.content == "I look."
