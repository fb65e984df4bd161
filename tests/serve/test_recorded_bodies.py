"""What programs that people have send, as their projects document it: each body is answered, tools are called."""

import json

import pytest
from scripted import THOUGHTS, scripted_model
from serving import events, serving, wait_until

pytest.importorskip("llguidance", reason="pip install llguidance")

SAID = (
    "They ask.\n</think>\n\nI look.\n"
    '<tool_call>\n{"name": "read", "arguments": {"path": "a.txt", "limit": 3}}\n</tool_call>'
)
CALLED = {"path": "a.txt", "limit": 3}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "The file\nto read", "format": "path"},
        "limit": {"type": ["integer", "null"], "exclusiveMinimum": 0, "default": 3},
        "env": {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"type": "string"}},
        "how": {"anyOf": [{"const": "text"}, {"enum": ["raw", "lines"]}, {"type": "null"}]},
    },
    "required": ["path", "limit"],
    "additionalProperties": False,
}
FUNCTION = {"name": "read", "description": "Reads a file", "parameters": SCHEMA}
EPHEMERAL = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


@pytest.fixture(scope="module")
def served():
    """A model that thinks, says something and calls `read`; one that says a word."""
    models = {
        "calls": lambda say: scripted_model(SAID, THOUGHTS, context=20_000),
        "says": lambda say: scripted_model("They ask.\n</think>\n\nA title", THOUGHTS, context=20_000),
    }
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
        yield served


def sent(served, path, body, **headers):
    answer = served.http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def claude_code(**more):
    """As Claude Code asks: an agent's system in blocks of which the first changes from call to call."""
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.0; cc_entrypoint=cli; cch=0f3a1;"},
        {"type": "text", "text": "You are a coding agent.", **EPHEMERAL},
        {"type": "text", "text": "# Environment\nWorking directory: /home/me", **EPHEMERAL},
    ]
    asked = [
        {"type": "text", "text": "<system-reminder>\nNo todo list.\n</system-reminder>"},
        {"type": "text", "text": "What is in a.txt?", **EPHEMERAL},
    ]
    return {
        "model": "calls",
        "max_tokens": 32000,
        "stream": True,
        "temperature": 1,
        "top_k": 1,
        "system": system,
        "messages": [{"role": "user", "content": asked}],
        "tools": [{"name": "read", "description": "Reads a file", "input_schema": SCHEMA, "strict": False}],
        "metadata": {"user_id": "user_0_account__session_1"},
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        **more,
    }


AGENT = {"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14"}


def blocks_of(text):
    """Anthropic's events as blocks of content."""
    blocks = []
    for one in (one for one in events(text) if one["type"].startswith("content_block")):
        if one["type"] == "content_block_start":
            blocks.append({**one["content_block"], "json": ""})
        elif one["type"] == "content_block_delta":
            blocks[-1]["json"] += one["delta"].get("partial_json", "")
    return blocks


@pytest.mark.parametrize(
    "more", [{}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}], ids=["budget", "adaptive"]
)
def test_claude_code(served, more):
    answer = sent(served, "/v1/messages?beta=true", claude_code(**more), **AGENT)
    thinking, text, use = blocks_of(answer.text)
    assert (thinking["type"], text["type"], use["name"]) == ("thinking", "text", "read")
    assert json.loads(use["json"]) == CALLED
    talk = claude_code()["messages"]
    said = [
        {"type": "thinking", "thinking": "They ask.", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": use["id"], "name": "read", "input": CALLED, "caller": {"type": "direct"}},
    ]
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "1\tone", "is_error": False, **EPHEMERAL}
    talk += [{"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
    assert blocks_of(sent(served, "/v1/messages?beta=true", claude_code(messages=talk, **more), **AGENT).text)
    count = {name: value for name, value in claude_code(**more).items() if name in ("model", "messages", "tools")}
    assert sent(served, "/v1/messages/count_tokens?beta=true", count).json()["input_tokens"] > 20
    quota = {"model": "says", "max_tokens": 1, "messages": [{"role": "user", "content": "quota"}], "metadata": {}}
    assert sent(served, "/v1/messages?beta=true", quota, **AGENT).json()["stop_reason"] == "max_tokens"


def test_what_claude_code_changes_from_call_to_call_costs_nothing(served):
    first = claude_code(stream=False, max_tokens=9)
    sent(served, "/v1/messages", first)
    first["system"][0]["text"] = first["system"][0]["text"].replace("0f3a1", "9c2b7")
    usage = sent(served, "/v1/messages", first).json()["usage"]
    assert usage["cache_read_input_tokens"] > 0 and usage["input_tokens"] <= 1


def codex(items=(), **more):
    """As Codex asks: instructions, messages of two roles, tools of kinds that only OpenAI has."""
    talk = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is in a.txt?"}]},
    ]
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    return {
        "model": "calls",
        "instructions": "You are a coding agent.",
        "input": [*talk, *items],
        "tools": [
            {"type": "function", "strict": False, **FUNCTION},
            {"type": "custom", "name": "apply_patch", "description": "Edits files", "format": grammar},
            {"type": "web_search", "external_web_access": False},
            {"type": "local_shell"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "text": {"verbosity": "low"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0198-77",
        "client_metadata": {"x-codex-installation-id": "0"},
        "temperature": 0,
        **more,
    }


def test_codex(served):
    told = events(sent(served, "/v1/responses", codex(), originator="codex_cli_rs", session_id="0198-77").text)
    assert told[-1]["type"] == "response.completed"
    reasoning, message, call = told[-1]["response"]["output"]
    assert (reasoning["type"], message["type"], call["type"]) == ("reasoning", "message", "function_call")
    assert json.loads(call["arguments"]) == CALLED
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "one"}
    again = codex([{**reasoning, "encrypted_content": None}, message, call, result])
    assert events(sent(served, "/v1/responses", again).text)[-1]["type"] == "response.completed"


CONTINUE_FIM = {
    "model": "says",
    "prompt": "<fim_prefix>def f():\n    <fim_suffix>\n<fim_middle>",
    "max_tokens": 4096,
    "temperature": 0.01,
    "stop": ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>", "\n\n", "\r\n\r\n", "/src/", "```"],
    "stream": True,
}


def test_continue(served):
    system = {"role": "system", "content": "<important_rules>\n  You are in agent mode.\n</important_rules>"}
    asked = {"role": "user", "content": [{"type": "text", "text": "What is in a.txt?"}]}
    body = {
        "model": "calls",
        "messages": [system, asked],
        "max_tokens": 4096,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {**FUNCTION, "strict": False}}],
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    chunks = events(sent(served, "/v1/chat/completions", body).text)
    calls = [call for one in chunks[:-1] for c in one["choices"] for call in c["delta"].get("tool_calls") or ()]
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == CALLED
    assert chunks[-2]["usage"]["completion_tokens"] > 0 and chunks[-1] == "[DONE]"
    history = {"role": "assistant", "content": " ", "tool_calls": [{**calls[0], "type": "function"}]}
    history["tool_calls"][0]["function"] = {"name": "read", "arguments": json.dumps(CALLED)}
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "one"}
    again = sent(served, "/v1/chat/completions", {**body, "messages": [system, asked, history, result]})
    assert events(again.text)[-1] == "[DONE]"
    assert events(sent(served, "/v1/completions", CONTINUE_FIM).text)[-1] == "[DONE]"


def lines(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def test_continue_by_ollama(served):
    options = {"temperature": 0.01, "num_predict": 64, "num_ctx": 8192, "stop": ["<fim_prefix>", "\n\n"], "num_gpu": -1}
    body = {"model": "says", "prompt": CONTINUE_FIM["prompt"], "raw": True, "options": options, "keep_alive": 1800}
    assert lines(sent(served, "/api/generate", {**body, "stream": True}))[-1]["done"]
    assert "model_info" in sent(served, "/api/show", {"name": "calls"}).json()


def test_open_webui(served):
    """A chat, and what it asks beside that: a title and tags, as JSON within text."""
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is in a.txt?"}]
    body = {
        "model": "says",
        "messages": talk,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "top_p": 0.9,
        "seed": 42,
        "max_tokens": 128,
        "frequency_penalty": 0,
        "user": "7",
    }
    assert events(sent(served, "/v1/chat/completions", body).text)[-1] == "[DONE]"
    title = {"model": "says", "messages": talk[1:], "stream": False, "max_completion_tokens": 1000}
    assert sent(served, "/v1/chat/completions", title).json()["choices"][0]["message"]["content"] == "A title"
    for path in ("/api/version", "/api/tags", "/api/ps", "/v1/models"):
        assert served.http.get(path).status_code == 200
    options = {"temperature": 0.8, "num_ctx": 2048, "num_predict": 128, "top_k": 40, "seed": 42, "repeat_last_n": 64}
    chat = {"model": "says:latest", "messages": talk, "options": options, "stream": True, "keep_alive": "5m"}
    assert lines(sent(served, "/api/chat", {**chat, "think": False, "format": None}))[-1]["done"]


HOME = {
    "name": "HassTurnOn",
    "description": "Turns on a device",
    "parameters": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "area": {"type": "string"},
            "domain": {"type": "array", "items": {"type": "string"}},
            "device_class": {"type": "array", "items": {"type": "string", "enum": ["outlet", "switch"]}},
        },
        "required": [],
    },
}


def test_home_assistant_by_ollama(served):
    talk = [
        {"role": "system", "content": "Current time is 07:00. You are a voice assistant."},
        {"role": "user", "content": "Turn on the lamp"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "HassTurnOn", "arguments": {}}}]},
        {"role": "tool", "content": '{"speech": {}, "response_type": "action_done"}', "tool_name": "HassTurnOn"},
        {"role": "user", "content": "And read a.txt"},
    ]
    tools = [{"type": "function", "function": one} for one in (HOME, FUNCTION)]
    body = {"model": "calls", "messages": talk, "tools": tools, "stream": True, "keep_alive": "-1s", "think": True}
    told = lines(sent(served, "/api/chat", {**body, "options": {"num_ctx": 8192}, "format": ""}))
    (call,) = [call for one in told for call in one["message"].get("tool_calls") or ()]
    assert call["function"] == {**call["function"], "name": "read", "arguments": CALLED}


def test_home_assistant_by_responses(served):
    asked = [
        {"type": "message", "role": "developer", "content": "You are a voice assistant."},
        {"type": "message", "role": "user", "content": "Read a.txt"},
    ]
    body = {
        "model": "calls",
        "input": asked,
        "tools": [{"type": "function", "strict": False, **one} for one in (HOME, FUNCTION)],
        "max_output_tokens": 3000,
        "top_p": 1.0,
        "temperature": 1.0,
        "top_k": 1,
        "user": "01JXYZ",
        "store": False,
        "stream": True,
        "text": {"verbosity": "medium"},
        "include": ["reasoning.encrypted_content"],
        "service_tier": "auto",
    }
    told = events(sent(served, "/v1/responses", body).text)[-1]
    assert json.loads(told["response"]["output"][-1]["arguments"]) == CALLED
