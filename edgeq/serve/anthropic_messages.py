"""POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients ask."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.choices import Run
from edgeq.serve.engine import End, Engine, Piece, Wanted
from edgeq.serve.failures import anthropic_shape, invalid, unsupported
from edgeq.serve.replies import Json, Streamed, sse, whole
from edgeq.serve.roster import Roster

_CHANGING: dict[str, tuple[Any, ...]] = {
    **asked.CHANGING,
    "container": (),
    "mcp_servers": (),
    "output_config": (),
    "output_format": (),
    "response_format": (),
    "thinking": ({"type": "disabled"},),
}
_PING = sse({"type": "ping"}, "ping")

Content = str | list[dict[str, Any]]


class Message(msgspec.Struct, kw_only=True):
    role: str
    content: Content


class CountRequest(msgspec.Struct, kw_only=True):
    messages: list[Message]
    model: str | None = None
    system: Content | None = None


class MessagesRequest(CountRequest, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None


async def messages(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, raw = await bodies.read(request, MessagesRequest)
    asked.refuse(raw, _CHANGING)
    name, engine = roster.find(fields.model)
    tokens = await asyncio.to_thread(_prompt, engine, fields)
    stops = asked.stops(fields.stop_sequences)
    goes_on = fields.messages[-1].role == "assistant"
    run = Run(engine, [Wanted(tokens, fields.max_tokens, stops, None, asked.sampling(raw), continues=goes_on)])
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": name}
    if fields.stream:
        frames = _events(run, head)
        return Streamed(run, frames, lambda failure: sse(anthropic_shape(failure), "error"), "text/event-stream")
    (choice,) = await whole(request, run)
    assert choice.end is not None
    said = {"content": [{"type": "text", "text": choice.text}], **_why(choice.end), "usage": _usage(run)}
    return Json({**head, **said})


async def count_tokens(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, raw = await bodies.read(request, CountRequest)
    asked.refuse(raw, _CHANGING)
    _, engine = roster.find(fields.model)
    return Json({"input_tokens": len(await asyncio.to_thread(_prompt, engine, fields))})


async def _events(run: Run, head: dict[str, Any]) -> AsyncIterator[bytes]:
    began = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
    usage = {"input_tokens": run.prompt_tokens, "output_tokens": 0}
    yield sse({"type": "message_start", "message": {**began, "usage": usage}}, "message_start")
    empty = {"type": "text", "text": ""}
    yield sse({"type": "content_block_start", "index": 0, "content_block": empty}, "content_block_start")
    yield _PING
    async for _, event in run.events():
        if event is None:
            yield _PING
        elif isinstance(event, Piece):
            if event.text:
                delta = {"type": "text_delta", "text": event.text}
                yield sse({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
        elif isinstance(event, End):
            yield sse({"type": "content_block_stop", "index": 0}, "content_block_stop")
            yield sse({"type": "message_delta", "delta": _why(event), "usage": _usage(run)}, "message_delta")
    yield sse({"type": "message_stop"}, "message_stop")


def _why(end: End) -> dict[str, Any]:
    if end.stopped_by is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stopped_by}
    return {"stop_reason": "end_turn" if end.reason == "stop" else "max_tokens", "stop_sequence": None}


def _usage(run: Run) -> dict[str, int]:
    """Tokens of the prompt that were computed, those that were kept, and those of the answer."""
    cached = run.cached_tokens
    return {
        "input_tokens": run.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": run.generated_tokens,
    }


def _prompt(engine: Engine, fields: CountRequest) -> list[int]:
    """The conversation's tokens."""
    if not fields.messages:
        raise invalid("messages is empty: give at least one message", "messages")
    talk = [{"role": "system", "content": system}] if (system := _system(fields.system)) else []
    for i, message in enumerate(fields.messages):
        if message.role not in ("user", "assistant"):
            raise invalid(f"messages[{i}].role is {message.role!r:.40}: give user or assistant", "messages")
        talk.append({"role": message.role, "content": "\n".join(_texts(message.content, f"messages[{i}].content"))})
    return engine.encode(engine.render(talk), add_special=False)


def _system(content: Content | None) -> str:
    """The system's text, less the lines that some clients put there for a service that reads them: they change from
    call to call, and nothing that follows could be kept."""
    lines = [line for text in _texts(content or "", "system") for line in text.split("\n")]
    return "\n".join(line for line in lines if not line.startswith("x-anthropic-"))


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
