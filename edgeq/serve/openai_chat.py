"""POST /v1/chat/completions."""

import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.engine.answer import TokenLogprob
from edgeq.serve import asked, bodies
from edgeq.serve.answer_format import response_format
from edgeq.serve.choices import HEARTBEAT_S, Choice, Run
from edgeq.serve.engine import End, Engine, Job, Piece, Wanted
from edgeq.serve.executor import in_thread
from edgeq.serve.failures import invalid, openai_shape
from edgeq.serve.replies import Json, Streamed, sse, whole
from edgeq.serve.roster import Roster
from edgeq.serve.tool_choice import openai_toolbox
from edgeq.talk.conversing import Conversation
from edgeq.talk.said import CallBegun, Text, Thought

PROGRESS_S = 0.3
DONE = b"data: [DONE]\n\n"
STILL_THERE = b": waiting\n\n"

Count = Annotated[int, msgspec.Meta(ge=0)]
Limit = Annotated[int, msgspec.Meta(ge=-1)]
Copies = Annotated[int, msgspec.Meta(ge=1, le=128)]


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct, kw_only=True):
    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    n: Copies | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    n_predict: Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    thinking_budget_tokens: Count | None = None
    reasoning_budget_tokens: Count | None = None
    enable_thinking: bool | None = None
    return_progress: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


async def chat_completions(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, raw = await bodies.read(request, ChatRequest)
    asked.refuse(raw)
    name, engine = await roster.find(fields.model)
    wanted = await in_thread(_wanted, engine, fields, raw)
    run = Run(engine, [wanted.numbered(i) for i in range(fields.n or 1)])
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}
    if fields.stream:
        with_usage = fields.stream_options is not None and bool(fields.stream_options.include_usage)
        return Streamed(
            run,
            _chunks(engine, run, head, with_usage, bool(fields.return_progress)),
            lambda f: sse(openai_shape(f)),
            "text/event-stream",
        )
    choices = await whole(request, run)
    return Json(
        {
            **head,
            "object": "chat.completion",
            "choices": [_choice(engine, run, choice) for choice in choices],
            "usage": usage(run),
            "timings": timings(run.jobs[-1]),
        },
        headers=run.headers,
    )


def _wanted(engine: Engine, fields: ChatRequest, raw: dict[str, Any]) -> Wanted:
    if fields.top_logprobs is not None and not fields.logprobs:
        raise invalid("top_logprobs needs logprobs: true", "top_logprobs")
    return Wanted(
        max_tokens=asked.limit(fields.max_completion_tokens, fields.max_tokens, fields.n_predict),
        stop=asked.stops(fields.stop),
        logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
        sampling=asked.sampling(raw),
        **engine.speaker.asked(_conversation(engine, fields, raw)),
    )


def _check_end(fields: ChatRequest) -> None:
    """Raise Failure where vLLM's fields ask for another end of the prompt than it has: an answer at the end of the
    conversation is gone on with, after anything else a new one begins."""
    goes_on = bool(fields.messages) and fields.messages[-1].get("role") == "assistant"
    if fields.add_generation_prompt and fields.continue_final_message:
        raise invalid("add_generation_prompt and continue_final_message exclude each other", "continue_final_message")
    for name, usual in (("continue_final_message", goes_on), ("add_generation_prompt", not goes_on)):
        if getattr(fields, name) not in (None, usual):
            what = "is the assistant's, and is gone on with" if goes_on else "is no answer to go on with"
            raise invalid(f"{name} is {str(not usual).lower()}: the last message {what}", name)


def _conversation(engine: Engine, fields: ChatRequest, raw: dict[str, Any]) -> Conversation:
    _check_end(fields)
    messages, images = asked.with_images(engine, asked.messages(fields.messages))
    variables = dict(fields.chat_template_kwargs or {})
    if fields.reasoning_effort is not None:
        variables = {"reasoning_effort": fields.reasoning_effort, **variables}
    thinks = variables.get("enable_thinking", fields.enable_thinking)
    if thinks is None and fields.reasoning_effort == "none":
        thinks = False
    budget = fields.thinking_budget_tokens
    return Conversation(
        messages,
        openai_toolbox(fields.tools, fields.tool_choice, fields.parallel_tool_calls),
        variables,
        thinks if isinstance(thinks, bool) else None,
        budget if budget is not None else fields.reasoning_budget_tokens,
        response_format(raw),
        images=images,
    )


def _choice(engine: Engine, run: Run, choice: Choice) -> dict[str, Any]:
    assert choice.end is not None
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.thought:
        message["reasoning_content"] = choice.thought
    if choice.calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
            for call, arguments in choice.calls
        ]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": _scores(engine, run, choice.scores),
        "finish_reason": choice.end.reason,
    }


async def _chunks(
    engine: Engine, run: Run, head: dict[str, Any], with_usage: bool, with_progress: bool
) -> AsyncIterator[bytes]:
    head = {**head, "object": "chat.completion.chunk", **({"usage": None} if with_usage else {})}

    def chunk(index: int, delta: dict[str, Any], finish: str | None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": more.pop("logprobs", None), "finish_reason": finish}
        return sse({**head, "choices": [choice], **more})

    begun = -1
    yield chunk(0, {"role": "assistant", "content": ""}, None)
    async for index, event in run.events(PROGRESS_S if with_progress else HEARTBEAT_S):
        if index > max(begun, 0):
            yield chunk(index, {"role": "assistant", "content": ""}, None)
        begun = index
        if event is None and with_progress and (job := run.jobs[-1]).evaluated < len(job.wanted.tokens):
            yield chunk(index, {}, None, prompt_progress=_progress(job))
        elif event is None:
            yield STILL_THERE
        elif isinstance(event, Piece):
            scores = _scores(engine, run, event.scores) if event.scores else None
            for delta in _deltas(event, scores is not None):
                yield chunk(index, delta, None, logprobs=scores)
                scores = None  # with the first of them
        elif isinstance(event, End):
            yield chunk(index, {}, event.reason, timings=timings(run.jobs[-1]))
    if with_usage:
        yield sse({**head, "choices": [], "usage": usage(run)})
    yield DONE


def _progress(job: Job) -> dict[str, Any]:
    """How far a prompt is, as llama.cpp's server tells it: tokens of `total`, those that were known among them."""
    waited = round((time.monotonic() - job.submitted) * 1000)
    known = job.timings.cached_tokens
    return {"total": len(job.wanted.tokens), "cache": known, "processed": job.evaluated, "time_ms": waited}


def _deltas(piece: Piece, needed: bool) -> Iterator[dict[str, Any]]:
    """What a stream says of a piece; something, where that is `needed`."""
    for one in piece.said:
        if isinstance(one, Text):
            yield {"content": one.text}
        elif isinstance(one, Thought):
            yield {"reasoning_content": one.text}
        elif isinstance(one, CallBegun):
            function = {"name": one.name, "arguments": ""}
            yield {"tool_calls": [{"index": one.index, "id": one.id, "type": "function", "function": function}]}
        else:
            yield {"tool_calls": [{"index": one.index, "function": {"arguments": one.text}}]}
    if needed and not piece.said:
        yield {"content": ""}


def _scores(engine: Engine, run: Run, scores: Sequence[TokenLogprob | None]) -> dict[str, Any] | None:
    """Log-probabilities in the form of chat completions; None where none were asked for."""
    if run.jobs[-1].wanted.logprobs is None:
        return None

    def said(token: int, logprob: float) -> dict[str, Any]:
        text, data = engine.token_text(token)
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(data)}

    noted = (score for score in scores if score is not None)
    return {
        "content": [
            {**said(score.token, score.logprob), "top_logprobs": [said(*one) for one in score.top]} for score in noted
        ],
        "refusal": None,
    }


def usage(run: Run) -> dict[str, Any]:
    """Tokens, as OpenAI's API counts them."""
    prompt, generated = run.prompt_tokens, run.generated_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": run.cached_tokens},
    }


def timings(job: Job) -> dict[str, Any]:
    """What a text took, under the names that llama.cpp's server gives it, and how long it waited for others."""
    took = job.timings
    return {
        "queued_ms": round(job.queued_s * 1000, 3),
        "cache_n": took.cached_tokens,
        "prompt_n": took.computed_tokens,
        "prompt_ms": round(took.prompt_s * 1000, 3),
        "prompt_per_second": round(took.prompt_rate, 3),
        "predicted_n": took.generated_tokens,
        "predicted_ms": round(took.generation_s * 1000, 3),
        "predicted_per_second": round(took.generation_rate, 3),
        "draft_n": took.drafted_tokens,
        "draft_n_accepted": took.accepted_tokens,
    }
