"""Tools and thoughts, asked for as OpenAI's clients do, of models that say what they are told to."""

import json

import pytest
from scripted import PLAIN, THOUGHTS, TOOLS, scripted_model
from serving import events, wait_until

pytest.importorskip("llguidance", reason="pip install llguidance")

CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["c", "f"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "unit": "c"}}\n</tool_call>'
TWO = CALL + '\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
ARGUMENTS = {"city": "Paris", "unit": "c"}
SCRIPTS = {
    "call": ("I look.\n\n" + CALL, TOOLS),
    "two": (TWO, TOOLS),
    "text": ("It is warm.", TOOLS),
    "wrong": ('<tool_call>\n{"name": "get_weather", "arguments": {"town": 5}}\n</tool_call>', TOOLS),
    "thinks": ("They ask.\n</think>\n\n" + CALL, THOUGHTS),
    "thinks long": ("again and " * 50, THOUGHTS),
    "answers": ("They ask.\n</think>\n\nWarm.", THOUGHTS),
    "plain": (CALL, PLAIN),
}


@pytest.fixture(scope="module")
def served():
    from serving import serving

    models = {name: (lambda say, s=script: scripted_model(*s)) for name, script in SCRIPTS.items()}
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
        yield served


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (CHAT, lambda function: {"type": "function", "function": function}),
        ("/api/chat", lambda function: {"type": "function", "function": function}),
        ("/v1/responses", lambda function: {"type": "function", **function}),
        ("/v1/messages", lambda function: {"name": "f", "input_schema": function["parameters"]}),
    ],
)
def test_what_is_passed_over_is_told(served, path, form):
    """In a header, of whole answers and of streams."""
    talk = [{"role": "user", "content": "So?"}]
    body = {"input" if path.endswith("responses") else "messages": talk, "model": "call", "max_tokens": 1}
    for keywords in ({}, {"uniqueItems": True}):
        values = {"type": "array", "items": {"type": "string"}, **keywords}
        tool = form({"name": "f", "parameters": {"type": "object", "properties": {"values": values}}})
        for stream in (False, True):
            answer = served.post(path, **body, tools=[tool], stream=stream)
            assert answer.status_code == 200, answer.text
            told = answer.headers.get("x-passed-over")
            assert told == ('Unimplemented keys: ["uniqueItems"]' if keywords else None)


def ask(served, model, **fields):
    """The one choice of an answer."""
    talk = [{"role": "user", "content": "How warm is Paris?"}]
    body = {"model": model, "messages": talk, "temperature": 0, "max_tokens": 300, "tools": [WEATHER, CLOCK], **fields}
    answer = served.post(CHAT, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def streamed(served, model, **fields):
    """The same, put together from a stream."""
    talk = [{"role": "user", "content": "How warm is Paris?"}]
    body = {"model": model, "messages": talk, "temperature": 0, "max_tokens": 300, "tools": [WEATHER, CLOCK], **fields}
    chunks = events(served.post(CHAT, **body, stream=True).text)[:-1]
    message = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    (call,) = value
                    if "id" in call:
                        assert call["index"] == len(message["tool_calls"])
                        message["tool_calls"].append({**call, "function": dict(call["function"])})
                    else:
                        message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
                elif name != "role":
                    message[name] += value
    return message, chunks[-1]["choices"][0]["finish_reason"]


def calls_of(message):
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message.get("tool_calls") or ()]


def test_a_call(served):
    choice = ask(served, "call")
    assert calls_of(choice["message"]) == [("get_weather", ARGUMENTS)]
    assert choice["message"]["content"] == "I look." and choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert len(call["id"]) == 9 and call["id"].isalnum() and call["type"] == "function"


@pytest.mark.parametrize("model", SCRIPTS)
def test_a_stream_says_the_same(served, model):
    whole, (message, finish) = ask(served, model), streamed(served, model)
    assert finish == whole["finish_reason"] and message["content"] == (whole["message"]["content"] or "")
    assert message["reasoning_content"] == whole["message"].get("reasoning_content", "")
    assert calls_of(message) == calls_of(whole["message"])


def test_an_answer_where_tools_are_offered(served):
    choice = ask(served, "text")
    assert choice["message"]["content"] == "It is warm." and choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


def test_several_calls(served):
    assert calls_of(ask(served, "two")["message"]) == [("get_weather", ARGUMENTS), ("clock", {})]
    assert calls_of(ask(served, "two", parallel_tool_calls=False)["message"]) == [("get_weather", ARGUMENTS)]


def test_arguments_follow_the_schema_whatever_the_model_would_say(served):
    ((name, arguments),) = calls_of(ask(served, "wrong")["message"])
    assert name == "get_weather" and arguments.keys() == {"city", "unit"}


@pytest.mark.parametrize("model", ["text", "call", "plain"])
def test_a_call_that_must_be(served, model):
    choice = ask(served, model, tool_choice="required", temperature=1, seed=3)
    assert choice["message"]["content"] is None and choice["finish_reason"] == "tool_calls"
    assert {name for name, _ in calls_of(choice["message"])} <= {"get_weather", "clock"}


def test_a_call_of_one_tool(served):
    named = {"type": "function", "function": {"name": "clock"}}
    choice = ask(served, "call", tool_choice=named)
    assert calls_of(choice["message"]) == [("clock", {})]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    assert calls_of(ask(served, "call", tool_choice=allowed, parallel_tool_calls=False)["message"]) == [("clock", {})]


def test_no_call(served):
    choice = ask(served, "call", tool_choice="none")
    assert choice["message"]["content"] == SCRIPTS["call"][0] and "tool_calls" not in choice["message"]


def test_thoughts(served):
    choice = ask(served, "thinks")
    assert choice["message"]["reasoning_content"] == "They ask."
    assert choice["message"]["content"] is None and calls_of(choice["message"]) == [("get_weather", ARGUMENTS)]
    choice = ask(served, "answers", tools=None)
    assert choice["message"]["content"] == "Warm." and choice["message"]["reasoning_content"] == "They ask."
    choice = ask(served, "thinks", tool_choice="required")
    assert choice["message"]["reasoning_content"] == "They ask."
    assert calls_of(choice["message"]) == [("get_weather", ARGUMENTS)]


def test_thoughts_that_are_not_wanted(served):
    for fields in ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        assert "reasoning_content" not in ask(served, "text", **fields)["message"]


@pytest.mark.parametrize("budget", [0, 1, 20])
def test_a_budget_of_thoughts(served, budget):
    choice = ask(served, "thinks long", tools=None, thinking_budget_tokens=budget, max_tokens=100)
    assert len(choice["message"].get("reasoning_content", "")) in (budget, budget - 1)
    assert choice["message"]["content"].startswith("a"[:0]) and "<" not in choice["message"]["content"]
    assert choice["message"]["content"]


def test_a_schema_comes_after_thoughts(served):
    described = {"type": "json_schema", "json_schema": {"schema": {"enum": ["Warm"]}}}
    choice = ask(served, "answers", tools=None, response_format=described)
    assert choice["message"]["content"] == '"Warm"' and choice["message"]["reasoning_content"] == "They ask."
    choice = ask(served, "call", response_format=described, temperature=1, seed=1)
    assert choice["message"]["content"] == '"Warm"' or choice["message"]["tool_calls"]


def test_a_history_with_calls(served):
    call = {"id": "x", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(ARGUMENTS)}}
    talk = [
        {"role": "user", "content": "How warm is Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x", "content": "21"},
    ]
    for model in ("text", "plain"):
        prompt = served.post("/apply-template", model=model, messages=talk, tools=[WEATHER]).json()["prompt"]
        assert '{"name": "get_weather", "arguments": {"city": "Paris", "unit": "c"}}' in prompt
        assert "21" in prompt and "ANSWER" in prompt and '"required": ["city", "unit"]' in prompt
    assert ask(served, "text", messages=talk)["message"]["content"] == "It is warm."


def test_logprobs_with_tools(served):
    choice = ask(served, "call", logprobs=True)
    text = "".join(token["token"] for token in choice["logprobs"]["content"])
    assert text == SCRIPTS["call"][0]
    talk = [{"role": "user", "content": "How warm is Paris?"}]
    fields = {"model": "call", "messages": talk, "temperature": 0, "tools": [WEATHER], "logprobs": True}
    chunks = events(served.post(CHAT, **fields, max_tokens=300, stream=True).text)[:-1]
    found = [c["logprobs"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    assert "".join(token["token"] for one in found for token in one["content"]) == text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [5]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [CLOCK, CLOCK]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "messages"),
        ({"thinking_budget_tokens": -1}, "thinking_budget_tokens"),
    ],
)
def test_what_is_refused_by_name(served, fields, param):
    body = {"model": "text", "messages": [{"role": "user", "content": "a"}], **fields}
    answer = served.post(CHAT, **body)
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith(param), answer.text


def test_a_keyword_that_cannot_be_followed(served):
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert ask(served, "text", tools=[tool])["message"]["content"] == "It is warm."
    tool["function"]["strict"] = True
    answer = served.post(CHAT, model="text", messages=[{"role": "user", "content": "a"}], tools=[tool])
    assert answer.status_code == 400 and "uniqueItems" in answer.text


def test_the_official_client_uses_tools(served):
    openai = pytest.importorskip("openai", reason="pip install openai")
    talk = [{"role": "user", "content": "How warm is Paris?"}]
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        fields = {"model": "thinks", "tools": [WEATHER], "temperature": 0, "max_tokens": 300}
        message = client.chat.completions.create(messages=talk, **fields).choices[0].message
        assert json.loads(message.tool_calls[0].function.arguments) == ARGUMENTS
        assert message.reasoning_content == "They ask."
        with client.chat.completions.stream(messages=talk, **fields) as stream:
            final = stream.get_final_completion().choices[0]
        assert final.finish_reason == "tool_calls"
        assert json.loads(final.message.tool_calls[0].function.arguments) == ARGUMENTS
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21"}
        again = client.chat.completions.create(messages=[*talk, message.model_dump(), result], **fields)
        assert again.choices[0].finish_reason == "tool_calls"
