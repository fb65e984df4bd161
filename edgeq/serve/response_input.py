"""What a request of the Responses API gives to the model: its items as messages of a chat."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.serve.failures import invalid, unsupported

_TEXTS = ("input_text", "output_text", "text", "refusal")


def items_of(given: str | Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`input` as a list of items."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)


def messages_of(instructions: str | None, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A conversation's messages, in the form of chat completions; instructions and system messages that follow them are
    one. Raises Failure for an item that a model cannot be told."""
    talk: list[dict[str, Any]] = []
    thought = ""  # before the message that it belongs to
    for i, item in enumerate(items):
        kind, where = item.get("type") or "message", f"input[{i}]"
        if kind == "message":
            read = _content if item.get("role") == "user" else _text
            message = {"role": item.get("role"), "content": read(item.get("content"), f"{where}.content")}
        elif kind == "function_call":
            call = {"id": _name(item, "call_id", where), "type": "function"}
            function = {"name": _name(item, "name", where), "arguments": item.get("arguments") or "{}"}
            message = {"role": "assistant", "content": "", "tool_calls": [{**call, "function": function}]}
            if talk and talk[-1].get("tool_calls") and not thought:
                talk[-1]["tool_calls"] += message["tool_calls"]
                continue
        elif kind == "function_call_output":
            output = _content(item.get("output"), f"{where}.output")
            message = {"role": "tool", "tool_call_id": _name(item, "call_id", where), "content": output}
        elif kind == "reasoning":
            thought = _text(item.get("content") or [], f"{where}.content", ("reasoning_text", "text"))
            continue
        else:
            raise unsupported(f"{where} of type {kind!r:.40}", "give messages, function calls and their outputs")
        if thought and message["role"] == "assistant":
            message["reasoning_content"] = thought
        thought = ""
        talk.append(message)
    if not instructions:
        return talk
    texts = [instructions]
    while talk and talk[0]["role"] in ("system", "developer"):
        texts.append(talk.pop(0)["content"])
    return [{"role": "system", "content": "\n\n".join(texts)}, *talk]


def _content(content: Any, field: str) -> str | list[dict[str, Any]]:
    """What a user or a tool says: a text, or a list of parts where there are images."""
    if not isinstance(content, list) or not any(map(_is_image, content)):
        return _text(content, field)
    return [
        _image(part, field) if _is_image(part) else {"type": "text", "text": _text([part], field)} for part in content
    ]


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "input_image"


def _image(part: Mapping[str, Any], field: str) -> dict[str, Any]:
    if part.get("file_id") is not None:
        raise unsupported(f"{field}: an image by its file_id", "give image_url with a data: URL")
    return {"type": "image_url", "image_url": part.get("image_url")}


def _text(content: Any, field: str, kinds: Sequence[str] = _TEXTS) -> str:
    """A content's text: itself, or its parts'."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(f"{field} must be text, or a list of parts", "input")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("refusal" if kind == "refusal" else "text") if kind in kinds else None
        if not isinstance(text, str):
            raise unsupported(
                f"{field} of type {kind!r:.40}", "give parts of text, and input_image in a user's message"
            )
        texts.append(text)
    return "\n".join(texts)


def _name(item: Mapping[str, Any], field: str, where: str) -> str:
    value = item.get(field)
    if not isinstance(value, str):
        raise invalid(f"{where}.{field} is missing", "input")
    return value
