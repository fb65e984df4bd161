"""POST /api/chat and /api/generate, as Ollama's clients ask."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.choices import Run
from edgeq.serve.engine import End, Engine, Piece, Wanted
from edgeq.serve.failures import ollama_shape
from edgeq.serve.grammar import ollama_format
from edgeq.serve.replies import Json, Streamed, line, whole
from edgeq.serve.roster import Roster

# As in `asked.CHANGING`. What concerns memory and the machine (num_ctx, num_gpu, keep_alive, ...) changes no answer.
_CHANGING: dict[str, tuple[Any, ...]] = {
    "context": (),
    "images": (),
    "suffix": (),
    "template": (),
    "think": (),
    "tools": (),
}
_NDJSON = "application/x-ndjson"


class TextRequest(msgspec.Struct, kw_only=True):
    model: str
    stream: bool | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None


class ChatRequest(TextRequest, kw_only=True):
    messages: list[dict[str, Any]] = []


class GenerateRequest(TextRequest, kw_only=True):
    prompt: str = ""
    system: str | None = None
    raw: bool | None = None


async def chat(request: Request) -> Response:
    fields, raw = await bodies.read(request, ChatRequest)
    asked.refuse(raw, _CHANGING)
    for message in fields.messages:
        asked.refuse(message, {"images": ()})
    talk = asked.messages(fields.messages) if fields.messages else []
    goes_on = bool(talk) and talk[-1]["role"] == "assistant"
    return await _answer(
        request,
        fields,
        talk,
        goes_on,
        ollama_format(raw),
        lambda text: {"message": {"role": "assistant", "content": text}},
    )


async def generate(request: Request) -> Response:
    fields, raw = await bodies.read(request, GenerateRequest)
    asked.refuse(raw, _CHANGING)
    roster: Roster = request.app.state.roster
    _, engine = roster.find(fields.model)
    if not fields.prompt:
        prompt: Any = []
    elif fields.raw or not engine.model.has_chat_template:
        prompt = fields.prompt
    else:
        prompt = [{"role": "system", "content": fields.system}] if fields.system else []
        prompt += [{"role": "user", "content": fields.prompt}]
    return await _answer(
        request, fields, prompt, isinstance(prompt, str), ollama_format(raw), lambda text: {"response": text}
    )


async def _answer(
    request: Request,
    fields: TextRequest,
    prompt: list[dict[str, Any]] | str,
    goes_on: bool,
    schema: Any,
    said: Callable[[str], dict[str, Any]],
) -> Response:
    """The answer to a conversation or the completion of a text, put as `said` puts text."""
    roster: Roster = request.app.state.roster
    _, engine = roster.find(fields.model)
    options = fields.options or {}
    asked.refuse(options)

    def frame(text: str, **more: Any) -> dict[str, Any]:
        return {"model": fields.model, "created_at": now(), **said(text), "done": bool(more), **more}

    if not prompt:  # which asks for the model to be loaded
        return Json(frame("", done_reason="load"))
    tokens = await asyncio.to_thread(_tokens, engine, prompt, fields.think)
    grammar = None
    if schema is not None:
        grammar = await asyncio.to_thread(engine.grammars.compile, schema, "format")
    limit = _limit(options)
    wanted = Wanted(tokens, limit, asked.stops(_stop(options)), None, asked.sampling(options), grammar, goes_on)
    run = Run(engine, [wanted])
    if fields.stream is not False:
        frames = _lines(run, frame)
        return Streamed(run, frames, lambda failure: line(ollama_shape(failure)), _NDJSON)
    (choice,) = await whole(request, run)
    assert choice.end is not None
    return Json(frame(choice.text, **_done(run, choice.end)))


async def _lines(run: Run, frame: Callable[..., dict[str, Any]]) -> AsyncIterator[bytes]:
    async for _, event in run.events():
        if event is None:
            yield line(frame(""))
        elif isinstance(event, Piece):
            if event.text:
                yield line(frame(event.text))
        elif isinstance(event, End):
            yield line(frame("", **_done(run, event)))


def _done(run: Run, end: End) -> dict[str, Any]:
    """Why it ended and what it took: durations in nanoseconds."""
    job, took = run.jobs[-1], run.jobs[-1].timings
    return {
        "done_reason": end.reason,
        "total_duration": _ns(job.queued_s + took.first_token_s + took.generation_s),
        "load_duration": _ns(job.queued_s),
        "prompt_eval_count": run.prompt_tokens,
        "prompt_eval_duration": _ns(took.prompt_s),
        "eval_count": took.generated_tokens,
        "eval_duration": _ns(took.generation_s),
    }


def _tokens(engine: Engine, prompt: list[dict[str, Any]] | str, think: bool | str | None) -> list[int]:
    if isinstance(prompt, str):
        return engine.encode(prompt)
    variables = {} if think is None else {"enable_thinking": False}
    return engine.encode(engine.render(prompt, variables), add_special=False)


def _limit(options: dict[str, Any]) -> int | None:
    """`num_predict`; below 0 it is no limit."""
    limit = options.get("num_predict")
    return None if isinstance(limit, int) and limit < 0 else limit


def _stop(options: dict[str, Any]) -> Any:
    return options.get("stop")


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def now(seconds: float | None = None) -> str:
    """A time as RFC 3339 has it: now, or `seconds` of the epoch."""
    when = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return when.isoformat().replace("+00:00", "Z")
