"""POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients ask."""

import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.answer_format import response_format
from edgeq.serve.anthropic_blocks import Blocks
from edgeq.serve.anthropic_content import Content, talk_of, toolbox_of
from edgeq.serve.choices import Run
from edgeq.serve.engine import End, Engine, Piece, Wanted
from edgeq.serve.executor import in_thread
from edgeq.serve.failures import anthropic_shape
from edgeq.serve.replies import Json, Streamed, sse, whole
from edgeq.serve.roster import Roster
from edgeq.talk.conversing import Conversation

_CHANGING: dict[str, tuple[Any, ...]] = {
    **asked.CHANGING,
    "container": (),
    "mcp_servers": (),
    "response_format": (),
}
_PING = sse({"type": "ping"}, "ping")


class Message(msgspec.Struct, kw_only=True):
    role: str
    content: Content


class Thinking(msgspec.Struct):
    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


class OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: dict[str, Any] | None = None


class CountRequest(msgspec.Struct, kw_only=True):
    messages: list[Message]
    model: str | None = None
    system: Content | None = None
    tools: list[Any] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None


class MessagesRequest(CountRequest, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None


async def messages(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, raw = await bodies.read(request, MessagesRequest)
    asked.refuse(raw, _CHANGING)
    name, engine = await roster.find(fields.model)
    wanted = await in_thread(_wanted, engine, fields, raw)
    run = Run(engine, [wanted])
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": name}
    if fields.stream:
        frames = _events(run, head)
        return Streamed(run, frames, lambda failure: sse(anthropic_shape(failure), "error"), "text/event-stream")
    (choice,) = await whole(request, run)
    assert choice.end is not None
    blocks = Blocks()
    for _ in blocks.tell(choice.said):
        pass
    answer = {**head, "content": blocks.whole(), **_why(choice.end), "usage": _usage(run)}
    return Json(answer, headers=run.headers)


async def count_tokens(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, raw = await bodies.read(request, CountRequest)
    asked.refuse(raw, _CHANGING)
    _, engine = await roster.find(fields.model)
    return Json({"input_tokens": await in_thread(_count, engine, fields)})


async def _events(run: Run, head: dict[str, Any]) -> AsyncIterator[bytes]:
    began = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
    usage = {"input_tokens": run.prompt_tokens, "output_tokens": 0}
    yield sse({"type": "message_start", "message": {**began, "usage": usage}}, "message_start")
    yield _PING
    blocks = Blocks()
    async for _, event in run.events():
        if event is None:
            yield _PING
        elif isinstance(event, Piece):
            for one in blocks.tell(event.said):
                yield sse(one, one["type"])
        elif isinstance(event, End):
            for one in blocks.end():
                yield sse(one, one["type"])
            yield sse({"type": "message_delta", "delta": _why(event), "usage": _usage(run)}, "message_delta")
    yield sse({"type": "message_stop"}, "message_stop")


def _wanted(engine: Engine, fields: MessagesRequest, raw: dict[str, Any]) -> Wanted:
    talk = _conversation(engine, fields)
    stops, sampling = asked.stops(fields.stop_sequences), asked.sampling(raw)
    return Wanted(max_tokens=fields.max_tokens, stop=stops, sampling=sampling, **engine.speaker.asked(talk))


def _count(engine: Engine, fields: CountRequest) -> int:
    return len(engine.speaker.tokens(_conversation(engine, fields)))


def _conversation(engine: Engine, fields: CountRequest) -> Conversation:
    thinking, config = fields.thinking, fields.output_config or OutputConfig()
    described = config.format or fields.output_format
    schema = None
    if described is not None:
        schema = response_format({"response_format": {"type": described.get("type"), "json_schema": described}})
    talk = talk_of(fields.system, [(message.role, message.content) for message in fields.messages])
    plain, images = asked.with_images(engine, talk)
    return Conversation(
        plain,
        toolbox_of(fields.tools, fields.tool_choice),
        {} if config.effort is None else {"reasoning_effort": config.effort},
        None if thinking is None else thinking.type != "disabled",
        None if thinking is None else thinking.budget_tokens,
        schema,
        "output_format",
        images=images,
    )


def _why(end: End) -> dict[str, Any]:
    if end.stopped_by is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stopped_by}
    reasons = {"stop": "end_turn", "tool_calls": "tool_use"}
    return {"stop_reason": reasons.get(end.reason, "max_tokens"), "stop_sequence": None}


def _usage(run: Run) -> dict[str, int]:
    """Tokens of the prompt that were computed, those that were kept, and those of the answer."""
    cached = run.cached_tokens
    return {
        "input_tokens": run.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": run.generated_tokens,
    }
