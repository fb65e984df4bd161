"""POST /api/chat and /api/generate, as Ollama's clients ask."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.answer_format import ollama_format
from edgeq.serve.choices import Run
from edgeq.serve.engine import End, Engine, Piece, Wanted
from edgeq.serve.executor import in_thread
from edgeq.serve.failures import invalid, ollama_shape
from edgeq.serve.infill import infill
from edgeq.serve.keep_alive import seconds as keep_alive_seconds
from edgeq.serve.replies import Json, Streamed, line, whole
from edgeq.serve.roster import Roster
from edgeq.serve.tool_choice import openai_toolbox
from edgeq.talk.conversing import Asked, Conversation
from edgeq.talk.said import CallArguments, CallBegun, Text
from edgeq.talk.toolbox import NO_TOOLS, Toolbox

# As in `asked.CHANGING`. What concerns memory and the machine (num_ctx, num_gpu, ...) changes no answer.
_CHANGING: dict[str, tuple[Any, ...]] = {
    "context": (),
    "images": (),
    "suffix": (),
    "template": (),
}
Call = dict[str, Any]

_NDJSON = "application/x-ndjson"


class TextRequest(msgspec.Struct, kw_only=True):
    model: str
    stream: bool | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: float | str | None = None


class ChatRequest(TextRequest, kw_only=True):
    messages: list[dict[str, Any]] = []
    tools: list[Any] | None = None


class GenerateRequest(TextRequest, kw_only=True):
    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: list[str] | None = None


async def chat(request: Request) -> Response:
    fields, raw = await bodies.read(request, ChatRequest)
    asked.refuse(raw, _CHANGING)
    talk = asked.messages([_in_parts(one) for one in with_ids(fields.messages)]) if fields.messages else []
    return await _answer(request, fields, talk, openai_toolbox(fields.tools), ollama_format(raw), _message)


async def generate(request: Request) -> Response:
    fields, raw = await bodies.read(request, GenerateRequest)
    asked.refuse(raw, {**_CHANGING, "suffix": (fields.suffix,), "images": (fields.images,)})
    roster: Roster = request.app.state.roster
    _, engine = await roster.find(fields.model)
    if not fields.prompt and not fields.suffix:
        prompt: Any = []
    elif fields.suffix or fields.raw or not engine.model.has_chat_template:
        prompt = fields.prompt
    else:
        prompt = [{"role": "system", "content": fields.system}] if fields.system else []
        prompt += [_in_parts({"role": "user", "content": fields.prompt, "images": fields.images})]
    if fields.images and not isinstance(prompt, list):
        raise invalid("images need a conversation, and a model with a chat template", "images")
    return await _answer(request, fields, prompt, NO_TOOLS, ollama_format(raw), _response, fields.suffix)


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose `images` are parts of its content, as OpenAI's API has them."""
    images = message.get("images")
    if images is None or images == []:
        return message
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise invalid("images must be a list of images in base64", "images")
    parts = [{"type": "image_url", "image_url": f"data:;base64,{image}"} for image in images]
    return {**message, "content": [*parts, {"type": "text", "text": message.get("content") or ""}]}


async def _answer(
    request: Request,
    fields: TextRequest,
    prompt: list[dict[str, Any]] | str,
    tools: Toolbox,
    schema: Any,
    said: Callable[..., dict[str, Any]],
    suffix: str | None = None,
) -> Response:
    """The answer to a conversation or the completion of a text, before `suffix`, put as `said` puts it."""
    roster: Roster = request.app.state.roster
    name, engine = await roster.find(fields.model)
    roster.keep(name, kept(fields.keep_alive))
    options = fields.options or {}
    asked.refuse(options)

    def frame(text: str = "", thought: str = "", calls: Sequence[Call] = (), **more: Any) -> dict[str, Any]:
        parts = said(text, thought, calls)
        return {"model": fields.model, "created_at": now(), **parts, "done": bool(more), **more}

    if not prompt and not suffix:  # which asks for the model to be loaded, or to go
        return Json(frame(done_reason="unload" if kept(fields.keep_alive) == 0 else "load"))
    more = await in_thread(_asked, engine, prompt, tools, fields.think, schema, suffix)
    stops, sampling = asked.stops(_stop(options)), asked.sampling(options)
    run = Run(engine, [Wanted(max_tokens=_limit(options), stop=stops, sampling=sampling, **more)])
    if fields.stream is not False:
        frames = _lines(run, frame)
        return Streamed(run, frames, lambda failure: line(ollama_shape(failure)), _NDJSON)
    (choice,) = await whole(request, run)
    assert choice.end is not None
    calls = [_whole_call(call.name, arguments) for call, arguments in choice.calls]
    return Json(frame(choice.text, choice.thought, calls, **_done(run, choice.end)), headers=run.headers)


async def _lines(run: Run, frame: Callable[..., dict[str, Any]]) -> AsyncIterator[bytes]:
    name, arguments = "", ""  # of a call that is not whole yet
    async for _, event in run.events():
        if event is None:
            yield line(frame())
        elif isinstance(event, Piece):
            for one in event.said:
                if isinstance(one, CallArguments):
                    arguments += one.text
                    continue
                if name:
                    yield line(frame(calls=[_whole_call(name, arguments)]))
                    name = arguments = ""
                if isinstance(one, CallBegun):
                    name = one.name
                else:
                    yield line(frame(one.text) if isinstance(one, Text) else frame(thought=one.text))
        elif isinstance(event, End):
            if name:
                yield line(frame(calls=[_whole_call(name, arguments)]))
            yield line(frame(**_done(run, event)))


def _message(text: str, thought: str, calls: Sequence[Call]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def _response(text: str, thought: str, calls: Sequence[Call]) -> dict[str, Any]:
    return {"response": text, **({"thinking": thought} if thought else {})}


def _whole_call(name: str, arguments: str) -> Call:
    """A call with its arguments as an object; with none where they were cut off."""
    try:
        return {"function": {"name": name, "arguments": json.loads(arguments)}}
    except ValueError:
        return {"function": {"name": name, "arguments": {}}}


def _done(run: Run, end: End) -> dict[str, Any]:
    """Why it ended and what it took: durations in nanoseconds."""
    job, took = run.jobs[-1], run.jobs[-1].timings
    return {
        "done_reason": "stop" if end.reason == "tool_calls" else end.reason,
        "total_duration": _ns(job.queued_s + took.first_token_s + took.generation_s),
        "load_duration": _ns(job.queued_s),
        "prompt_eval_count": run.prompt_tokens,
        "prompt_eval_duration": _ns(took.prompt_s),
        "eval_count": took.generated_tokens,
        "eval_duration": _ns(took.generation_s),
    }


def _asked(
    engine: Engine,
    prompt: list[dict[str, Any]] | str,
    tools: Toolbox,
    think: bool | str | None,
    schema: Any,
    suffix: str | None,
) -> Asked:
    if isinstance(prompt, str):
        if think:
            raise invalid("think needs a conversation, and a model with a chat template", "think")
        grammar = None if schema is None else engine.grammars.compile(schema, "format")
        tokens = infill(engine, prompt, suffix) if suffix else engine.encode(prompt)
        return {
            "tokens": tokens,
            "grammar": grammar,
            "continues": True,
            "parser": None,
            "shown": frozenset(),
            "images": None,
        }
    if think and not engine.dialect.thinks:
        raise invalid("think: the model does not support thinking", "think")
    effort = {"reasoning_effort": think} if isinstance(think, str) else {}
    talk, images = asked.with_images(engine, prompt)
    thinks = None if think is None else bool(think)
    return engine.speaker.asked(Conversation(talk, tools, effort, thinks, None, schema, "format", images=images))


def with_ids(talk: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A conversation whose calls have ids, which Ollama's clients give none, and whose tools name what they answer."""
    found: list[dict[str, Any]] = []
    waiting: list[tuple[str, Any]] = []
    for message in talk:
        calls = message.get("tool_calls")
        if isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
            named = [{"id": f"call{len(found):04}{i % 10}", "type": "function", **call} for i, call in enumerate(calls)]
            waiting = [(call["id"], (call.get("function") or {}).get("name")) for call in named]
            message = {**message, "tool_calls": named}
        elif message.get("role") == "tool":
            name = message.get("tool_name") or message.get("name")
            at = next((i for i, one in enumerate(waiting) if name in (None, one[1])), None)
            call, called = waiting.pop(at) if at is not None else ("call00000", name)
            message = {"tool_call_id": call, **message, "name": name or called}
        found.append(message)
    return found


def _limit(options: dict[str, Any]) -> int | None:
    """`num_predict`; below 0 it is no limit."""
    limit = options.get("num_predict")
    return None if isinstance(limit, int) and limit < 0 else limit


def _stop(options: dict[str, Any]) -> Any:
    return options.get("stop")


def kept(keep_alive: float | str | None) -> float | None:
    """Seconds that `keep_alive` asks for; None where nothing is asked. Raises Failure."""
    try:
        return None if keep_alive is None else keep_alive_seconds(keep_alive)
    except ValueError as error:
        raise invalid('keep_alive must be seconds, or a text like "5m"', "keep_alive") from error


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def now(seconds: float | None = None) -> str:
    """A time as RFC 3339 has it: now, or `seconds` of the epoch."""
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return when.isoformat().replace("+00:00", "Z")
