"""Conversations and tools in the form of Anthropic's API: blocks of content."""

import re
from collections.abc import Sequence
from typing import Any

from edgeq.serve.failures import invalid, unsupported
from edgeq.talk.toolbox import Toolbox, function, offered

Content = str | list[dict[str, Any]]
Parts = str | list[dict[str, Any]]  # a content as OpenAI's chats have it


def talk_of(system: Content | None, messages: Sequence[tuple[str, Content]]) -> list[dict[str, Any]]:
    """A conversation as OpenAI's chats have it. Raises Failure for what is none, or is no text."""
    if not messages:
        raise invalid("messages is empty: give at least one message", "messages")
    talk = [{"role": "system", "content": text}] if (text := _system(system)) else []
    for i, (role, content) in enumerate(messages):
        if role not in ("user", "assistant"):
            raise invalid(f"messages[{i}].role is {role!r:.40}: give user or assistant", "messages")
        talk += _said(role, content, f"messages[{i}].content")
    return talk


def toolbox_of(tools: Sequence[Any] | None, choice: dict[str, Any] | None) -> Toolbox:
    """The tools of a request. Raises Failure for what is none, or runs at Anthropic's."""
    box = offered([_tool(i, tool) for i, tool in enumerate(tools or ())])
    kind = "auto" if choice is None else choice.get("type")
    if choice is not None and choice.get("disable_parallel_tool_use"):
        box = Toolbox(box.tools, parallel=False)
    if kind in ("auto", "none", "any"):
        return box.chosen(kind)
    if kind == "tool" and choice is not None:
        return box.only(str(choice.get("name")))
    raise invalid(f"tool_choice.type is {kind!r:.40}: give auto, any, tool or none", "tool_choice")


def _tool(number: int, tool: Any) -> dict[str, Any]:
    where = f"tools[{number}]"
    if not isinstance(tool, dict):
        raise invalid(f"{where} is no object", "tools")
    if tool.get("type", "custom") not in (None, "custom"):
        raise unsupported(f"{where}.type {tool['type']!r:.40}", "give tools with an input_schema")
    return function(tool.get("name"), tool.get("description"), tool.get("input_schema"), tool.get("strict"), where)


def _system(content: Content | None) -> str:
    """The system's text, less the lines that some clients put there for a service that reads them: they change from
    call to call, and nothing that follows could be kept."""
    lines = [line for text in _texts(content or "", "system") for line in text.split("\n")]
    return "\n".join(line for line in lines if not line.startswith("x-anthropic-"))


def _said(role: str, content: Content, field: str) -> list[dict[str, Any]]:
    """A message as OpenAI's API has it: several where it tells what tools said."""
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    results = [block for block in content if block.get("type") == "tool_result"]
    calls = [block for block in content if block.get("type") == "tool_use"]
    if results and role != "user":
        raise invalid(f"{field}: a tool_result belongs into a user's message", "messages")
    if calls and role != "assistant":
        raise invalid(f"{field}: a tool_use belongs into an assistant's message", "messages")
    said = [
        {"role": "tool", "tool_call_id": str(block.get("tool_use_id")), "content": _result(block, field)}
        for block in results
    ]
    rest = [block for block in content if block.get("type") not in ("tool_result", "tool_use")]
    parts = _parts(rest, field) if role == "user" else "\n".join(_texts(rest, field))
    message: dict[str, Any] = {"role": role, "content": parts}
    thoughts = [str(block.get("thinking") or "") for block in content if block.get("type") == "thinking"]
    if role == "assistant" and any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = [_call(block, field) for block in calls]
    return [*said, message] if rest or calls or not said else said


def _call(block: dict[str, Any], field: str) -> dict[str, Any]:
    if not isinstance(block.get("name"), str) or not isinstance(block.get("input") or {}, dict):
        raise invalid(f"{field}: a tool_use needs a name, and an object as input", "messages")
    said = {"name": block["name"], "arguments": block.get("input") or {}}
    return {"id": str(block.get("id")), "type": "function", "function": said}


def _result(block: dict[str, Any], field: str) -> Parts:
    content = block.get("content") or ""
    if not isinstance(content, str) and not (isinstance(content, list) and all(isinstance(b, dict) for b in content)):
        raise invalid(f"{field}: what a tool says must be a text, or blocks", "messages")
    parts = _parts(content, field)
    if not block.get("is_error"):
        return parts
    return f"Error: {parts}" if isinstance(parts, str) else [{"type": "text", "text": "Error: "}, *parts]


def _parts(content: Content, field: str) -> Parts:
    """What a user or a tool says: a text, or a list of parts where there are images."""
    if isinstance(content, str) or not any(block.get("type") == "image" for block in content):
        return "\n".join(_texts(content, field))
    parts: list[dict[str, Any]] = []
    for block in content:
        if block.get("type") == "image":
            parts.append({"type": "image_url", "image_url": _data_url(block.get("source"), field)})
        else:
            parts += [{"type": "text", "text": text} for text in _texts([block], field)]
    return parts


def _data_url(source: Any, field: str) -> str:
    """An image's source. Raises Failure for one that would have to be fetched, or that holds no image."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind != "base64":
        raise unsupported(f"{field}: an image whose source is of type {kind!r:.40}", "give its bytes in base64")
    media, data = source.get("media_type"), source.get("data")
    if not isinstance(media, str) or not re.fullmatch("image/[a-z.+-]{1,20}", media) or not isinstance(data, str):
        raise invalid(f"{field}: an image's source needs a media_type, as image/png, and data in base64", "messages")
    return f"data:{media};base64,{data}"


def _texts(content: Content, field: str) -> list[str]:
    """The texts of a content's blocks; what the model thought before is none."""
    if isinstance(content, str):
        return [content]
    texts = []
    for block in content:
        kind = block.get("type")
        if kind in ("thinking", "redacted_thinking"):
            continue
        if kind != "text" or not isinstance(block.get("text"), str):
            hint = "give blocks of text, and images in a user's messages"
            raise unsupported(f"{field} of type {kind!r:.40}", hint)
        texts.append(block["text"])
    return texts
