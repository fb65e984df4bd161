"""Conversations and tools in the form of Anthropic's API: blocks of content."""

from collections.abc import Sequence
from typing import Any

from edgeq.serve.failures import invalid, unsupported
from edgeq.talk.toolbox import Toolbox, function, offered

Content = str | list[dict[str, Any]]


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
    texts = _texts([block for block in content if block not in results and block not in calls], field)
    message: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    thoughts = [str(block.get("thinking") or "") for block in content if block.get("type") == "thinking"]
    if role == "assistant" and any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = [_call(block, field) for block in calls]
    return [*said, message] if texts or calls or not said else said


def _call(block: dict[str, Any], field: str) -> dict[str, Any]:
    if not isinstance(block.get("name"), str) or not isinstance(block.get("input") or {}, dict):
        raise invalid(f"{field}: a tool_use needs a name, and an object as input", "messages")
    said = {"name": block["name"], "arguments": block.get("input") or {}}
    return {"id": str(block.get("id")), "type": "function", "function": said}


def _result(block: dict[str, Any], field: str) -> str:
    content = block.get("content") or ""
    if not isinstance(content, str | list):
        raise invalid(f"{field}: what a tool says must be a text, or blocks", "messages")
    text = "\n".join(_texts(content, field))
    return f"Error: {text}" if block.get("is_error") else text


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
            raise unsupported(f"{field} of type {kind!r:.40}", "give blocks of text")
        texts.append(block["text"])
    return texts
