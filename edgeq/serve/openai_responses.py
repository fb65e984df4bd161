"""/v1/responses: OpenAI's Responses API."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.answer_format import OBJECT
from edgeq.serve.choices import Run
from edgeq.serve.engine import End, Engine, Piece, Wanted
from edgeq.serve.executor import in_thread
from edgeq.serve.failures import invalid
from edgeq.serve.openai_chat import STILL_THERE
from edgeq.serve.openai_chat import _scores as chat_scores
from edgeq.serve.replies import Json, Streamed, exhaust
from edgeq.serve.response_events import ResponseState
from edgeq.serve.response_input import items_of, messages_of
from edgeq.serve.response_store import Kept, ResponseStore
from edgeq.serve.roster import Roster
from edgeq.serve.tool_choice import openai_toolbox
from edgeq.talk.conversing import Conversation
from edgeq.talk.grammar import check_there
from edgeq.talk.said import Text
from edgeq.talk.toolbox import Toolbox

_CHANGING: dict[str, tuple[Any, ...]] = {
    **{field: neutral for field, neutral in asked.CHANGING.items() if field != "tools"},
    "background": (),
    "conversation": (),
    "prompt": (),
    "response_format": (),
    "truncation": ("disabled",),
}
_LOGPROBS = "message.output_text.logprobs"


class TextOptions(msgspec.Struct):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class InputRequest(msgspec.Struct, kw_only=True):
    input: str | list[dict[str, Any]] = []
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


class ResponsesRequest(InputRequest, kw_only=True):
    stream: bool | None = None
    store: bool | None = None
    include: list[str] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    metadata: dict[str, Any] | None = None
    text: TextOptions | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None


async def responses(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    store: ResponseStore = request.app.state.responses
    fields, raw = await bodies.read(request, ResponsesRequest)
    asked.refuse(raw, _CHANGING)
    name, engine = await roster.find(fields.model)
    before, items = _before(store, fields), items_of(fields.input)
    wanted = await in_thread(_wanted, engine, fields, raw, [*before, *items])
    run = Run(engine, [wanted])
    state = ResponseState(_told(name, fields, raw))

    def keep() -> None:
        if fields.store is not False:
            store.add(Kept(state.body, [*before, *items, *state.body["output"]], len(before)))

    if fields.stream:
        return Streamed(run, _events(engine, run, state, keep), state.failed, "text/event-stream")
    await exhaust(request, run, _events(engine, run, state, keep))
    return Json(state.body, headers=run.headers)


async def input_tokens(request: Request) -> Response:
    """POST /v1/responses/input_tokens."""
    roster: Roster = request.app.state.roster
    fields, raw = await bodies.read(request, InputRequest)
    asked.refuse(raw, _CHANGING)
    _, engine = await roster.find(fields.model)
    items = [*_before(request.app.state.responses, fields), *items_of(fields.input)]
    tokens = await in_thread(lambda: engine.speaker.tokens(_conversation(engine, fields, items)))
    return Json({"object": "response.input_tokens", "input_tokens": len(tokens)})


async def stored(request: Request) -> Response:
    """GET /v1/responses/ID."""
    store: ResponseStore = request.app.state.responses
    return Json(store.get(request.path_params["name"]).response)


async def forget(request: Request) -> Response:
    """DELETE /v1/responses/ID."""
    store: ResponseStore = request.app.state.responses
    name = request.path_params["name"]
    store.drop(name)
    return Json({"id": name, "object": "response", "deleted": True})


async def stored_input(request: Request) -> Response:
    """GET /v1/responses/ID/input_items."""
    store: ResponseStore = request.app.state.responses
    kept = store.get(request.path_params["name"])
    items = kept.items[kept.asked : len(kept.items) - len(kept.response["output"])]
    said = [{"type": "message", **item} for item in items]
    return Json({"object": "list", "data": said, "has_more": False})


async def _events(engine: Engine, run: Run, state: ResponseState, keep: Any) -> AsyncIterator[bytes]:
    for frame in state.begin():
        yield frame
    async for _, event in run.events():
        if event is None:
            yield STILL_THERE
        elif isinstance(event, Piece):
            scores = _scores(engine, run, event.scores)
            for one in event.said or ([Text("")] if scores else []):
                for frame in state.said(one, scores):
                    yield frame
                scores = scores if not isinstance(one, Text) else []  # with the first part of the answer
        elif isinstance(event, End) and event.reason != "cancelled":
            frames = [*state.end(event.reason, _usage(engine, run, state))]
            keep()  # before the client knows that it is there
            for frame in frames:
                yield frame


def _before(store: ResponseStore, fields: InputRequest) -> list[dict[str, Any]]:
    """The conversation that is gone on with."""
    if fields.previous_response_id is None:
        return []
    return store.get(fields.previous_response_id, "previous_response_id").items


def _wanted(engine: Engine, fields: ResponsesRequest, raw: dict[str, Any], items: list[dict[str, Any]]) -> Wanted:
    with_scores = fields.top_logprobs is not None or _LOGPROBS in (fields.include or ())
    talk = replace(_conversation(engine, fields, items), schema=_schema(fields.text))
    return Wanted(
        max_tokens=fields.max_output_tokens,
        logprobs=(fields.top_logprobs or 0) if with_scores else None,
        sampling=asked.sampling(raw),
        **engine.speaker.asked(talk),
    )


def _conversation(engine: Engine, fields: InputRequest, items: list[dict[str, Any]]) -> Conversation:
    if not items and not fields.instructions:
        raise invalid("input is empty: give a text, or a list of items", "input")
    talk = asked.messages(messages_of(fields.instructions, items))
    if talk[-1]["role"] == "assistant":
        raise invalid("input ends with an answer: end it with a user's message", "input")
    effort = fields.reasoning.effort if fields.reasoning else None
    variables = {} if effort is None else {"reasoning_effort": effort}
    thinks = False if effort == "none" else None
    plain, images = asked.with_images(engine, talk, "input")
    return Conversation(plain, _toolbox(fields), variables, thinks, field="text.format", images=images)


def _toolbox(fields: InputRequest) -> Toolbox:
    """The functions among the tools: those of other kinds run elsewhere, and are passed over."""
    functions = [
        {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
        for tool in fields.tools or ()
        if tool.get("type") == "function"
    ]
    return openai_toolbox(functions, fields.tool_choice, fields.parallel_tool_calls)


def _schema(text: TextOptions | None) -> Any:
    """The schema that `text.format` asks for; None for plain text. Raises Failure."""
    wanted = text.format if text is not None else None
    kind = None if wanted is None else wanted.get("type")
    if wanted is None or kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise invalid(f"text.format.type is {kind!r:.40}: give text, json_object or json_schema", "text.format")
    check_there("text.format")
    schema = OBJECT if kind == "json_object" else wanted.get("schema")
    if not isinstance(schema, dict):
        raise invalid("text.format.schema is missing: give a JSON schema", "text.format")
    return schema


def _scores(engine: Engine, run: Run, scores: Any) -> list[Any]:
    said = chat_scores(engine, run, scores)
    return [] if said is None else list(said["content"])


def _usage(engine: Engine, run: Run, state: ResponseState) -> dict[str, Any]:
    thought = len(engine.encode(state.thought, False, False)) if state.thought else 0
    prompt, generated = run.prompt_tokens, run.generated_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": run.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + generated,
    }


def _told(name: str, fields: ResponsesRequest, raw: dict[str, Any]) -> dict[str, Any]:
    """What a response says of its request."""
    reasoning = fields.reasoning or Reasoning()
    text_format = fields.text.format if fields.text is not None else None
    return {
        "model": name,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "metadata": fields.metadata or {},
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": fields.previous_response_id,
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
        "store": fields.store is not False,
        "temperature": raw.get("temperature"),
        "text": {"format": text_format or {"type": "text"}},
        "tool_choice": fields.tool_choice or "auto",
        "tools": fields.tools or [],
        "top_logprobs": fields.top_logprobs or 0,
        "top_p": raw.get("top_p"),
        "truncation": "disabled",
        "user": raw.get("user"),
    }
