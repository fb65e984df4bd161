"""Conversations that every chat template is tried on, and the templates: for the tests and the golden file's tool.

Of a rendering only a digest is kept (tests/golden/chat_templates.json), so that no template's text is needed here.
"""

import datetime
import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

NOW = datetime.datetime(2026, 3, 9, 14, 5, 30)  # what strftime_now says: golden renderings must not age
SPECIAL_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather at a place & time; answers in <degrees>.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city's name, e.g. “Zürich”"},
                "days": {"type": "integer", "description": "How many days", "default": 1},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "hours": {"type": "array", "items": {"type": "number"}, "description": "Of the day"},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "Tells the time.",
        "parameters": {"type": "object", "properties": {}},
        "return": {"type": "string", "description": "Hours and minutes"},
    },
}
SYSTEM = {"role": "system", "content": "You are brief.\nYou never lie. "}
QUESTION = {"role": "user", "content": "  What is <b>½</b> & 'x' in \"JSON\"?\n"}
SHORT_ID = "abc123XYZ"  # nine letters and digits, as some templates want it


def _call(arguments: Any) -> dict[str, Any]:
    return {"id": SHORT_ID, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def _tool_talk(arguments: Any, **answer: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "How warm is Zürich?"},
        {"role": "assistant", **answer, "tool_calls": [_call(arguments)]},
        {"role": "tool", "name": "get_weather", "tool_call_id": SHORT_ID, "content": '{"degrees": 21.5}'},
        {"role": "assistant", "content": "It is 21.5 °C."},
        {"role": "user", "content": "Thanks. And tomorrow?"},
    ]


_TURNS = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": " Hi! How can I help? "},
    {"role": "user", "content": "Count:\n1\n2"},
    {"role": "assistant", "content": "3"},
    QUESTION,
]
_ARGUMENTS = {"city": "Zürich", "days": 2, "hours": [6.5, 18], "unit": None, "now": True}

# Kind -> (messages, tools).
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "user": ([QUESTION], None),
    "system": ([SYSTEM, QUESTION], None),
    "turns": (_TURNS, None),
    "system and turns": ([SYSTEM, *_TURNS], None),
    "tools offered": ([SYSTEM, QUESTION], [WEATHER, CLOCK]),
    "tool called": (_tool_talk(_ARGUMENTS, content="Let me look."), [WEATHER, CLOCK]),
    "tool called as in OpenAI's API": (_tool_talk(json.dumps(_ARGUMENTS), content=None), [WEATHER]),
    "tool's answer last": ([SYSTEM, *_tool_talk(_ARGUMENTS, content="")[:3]], [WEATHER, CLOCK]),
    "reasoning": (
        [QUESTION, {"role": "assistant", "content": "It is a half.", "reasoning": "They ask for ½."}, QUESTION],
        None,
    ),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "?"}]}], None),
}


def templates(folder: Path) -> Iterator[tuple[str, str, str | None]]:
    """(name, source, system prompt) of every template in the folder of test data.

    A `.json` file names a template and the system prompt that its model was trained with; without one it is None.
    """
    root = folder / "chat-templates"
    for path in sorted(root.rglob("*.jinja")):
        yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"), None
    for path in sorted(root.rglob("*.json")):
        settings = json.loads(path.read_text(encoding="utf-8"))
        source = root / Path(settings["chat_template"]).name
        if source.is_file():
            yield path.relative_to(root).as_posix(), source.read_text(encoding="utf-8"), settings["system_prompt"]
    for path in sorted((folder / "tokenizers").rglob("tokenizer_config.json")):
        source_text = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
        if source_text:
            yield f"tokenizers/{path.parent.name}", source_text, None


def conversation(kind: str, system_prompt: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """A copy of a conversation and its tools, with the template's own system prompt where it has one."""
    messages, tools = deepcopy(CONVERSATIONS[kind])
    if system_prompt is not None and messages[0]["role"] == "system":
        messages[0]["content"] = system_prompt
    return messages, tools


def digest(text: str) -> str:
    """What is kept of a text: the first 48 bits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
