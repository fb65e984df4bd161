"""POST /v1/completions."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from itertools import accumulate
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.engine.answer import TokenLogprob
from edgeq.serve import asked, bodies
from edgeq.serve.choices import Choice, Run
from edgeq.serve.engine import End, Engine, Piece, Wanted
from edgeq.serve.executor import in_thread
from edgeq.serve.failures import invalid, openai_shape
from edgeq.serve.infill import infill
from edgeq.serve.openai_chat import DONE, STILL_THERE, Copies, Limit, StreamOptions, timings, usage
from edgeq.serve.replies import Json, Streamed, sse, whole
from edgeq.serve.roster import Roster

MOST_PROMPTS = 128
TOKENS = 16  # where max_tokens is not given, as OpenAI's API has it


class CompletionRequest(msgspec.Struct, kw_only=True):
    prompt: str | list[Any]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    n: Copies | None = None
    max_tokens: Limit | None = None
    n_predict: Limit | None = None
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None


async def completions(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, raw = await bodies.read(request, CompletionRequest)
    asked.refuse(
        raw, {**asked.CHANGING, "response_format": ({"type": "text"},), "tools": ()} | {"suffix": (fields.suffix,)}
    )
    name, engine = await roster.find(fields.model)
    wanted = await in_thread(_wanted, engine, fields, raw)
    for one in wanted:
        engine.check(one)
    before = [await _echo(engine, one) if fields.echo else None for one in wanted]
    run = Run(engine, wanted)
    head = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
    }
    if fields.stream:
        with_usage = fields.stream_options is not None and bool(fields.stream_options.include_usage)
        frames = _chunks(engine, run, before, head, with_usage)
        return Streamed(run, frames, lambda failure: sse(openai_shape(failure)), "text/event-stream")
    choices = await whole(request, run)
    said = [_choice(engine, run, choice, before[choice.index]) for choice in choices]
    return Json({**head, "choices": said, "usage": usage(run), "timings": timings(run.jobs[-1])})


def _wanted(engine: Engine, fields: CompletionRequest, raw: dict[str, Any]) -> list[Wanted]:
    stops, sampling = asked.stops(fields.stop), asked.sampling(raw)
    limit = asked.limit(fields.max_tokens, fields.n_predict, usual=TOKENS)
    wanted = []
    for prompt in _prompts(fields.prompt):
        tokens = _tokens(engine, prompt, fields.suffix)
        one = Wanted(tokens, limit, stops, fields.logprobs, sampling, continues=True)
        wanted += [one.numbered(i) for i in range(fields.n or 1)]
    if len(wanted) > MOST_PROMPTS:
        raise invalid(f"{len(wanted)} texts are asked for at once: ask for at most {MOST_PROMPTS}", "prompt")
    return wanted


def _tokens(engine: Engine, prompt: str | list[int], suffix: str | None) -> list[int]:
    if not suffix:
        return engine.encode(prompt) if isinstance(prompt, str) else prompt
    if not isinstance(prompt, str):
        raise invalid("suffix needs a prompt that is a text", "suffix")
    return infill(engine, prompt, suffix)


def _prompts(prompt: str | list[Any]) -> list[str | list[int]]:
    """A text, token ids, or a list of either."""
    if isinstance(prompt, str) or asked.are_ids(prompt):
        return [prompt]
    if prompt and all(isinstance(one, str) or asked.are_ids(one) for one in prompt):
        return prompt
    raise invalid("prompt must be a text, a list of token ids, or a list of these", "prompt")


async def _echo(engine: Engine, wanted: Wanted) -> Piece:
    """The prompt as a piece before the text."""
    text = engine.model.tokenizer.decode(wanted.tokens)
    if wanted.logprobs is None:
        return Piece(text, wanted.tokens, ())
    scores = await engine.compute(lambda _: engine.prompt_scores(wanted.tokens, wanted.logprobs or 0))
    return Piece(text, wanted.tokens, [None, *scores])


def _choice(engine: Engine, run: Run, choice: Choice, before: Piece | None) -> dict[str, Any]:
    assert choice.end is not None
    prelude = before or Piece("", [], ())
    tokens, scores = [*prelude.tokens, *choice.tokens], [*prelude.scores, *choice.scores]
    return {
        "index": choice.index,
        "text": prelude.text + choice.text,
        "logprobs": _scores(engine, run, tokens, scores, 0),
        "finish_reason": choice.end.reason,
    }


async def _chunks(
    engine: Engine, run: Run, before: Sequence[Piece | None], head: dict[str, Any], with_usage: bool
) -> AsyncIterator[bytes]:
    head = {**head, **({"usage": None} if with_usage else {})}
    begun, offset = -1, 0

    def chunk(index: int, piece: Piece, finish: str | None, **more: Any) -> bytes:
        nonlocal offset
        scores = _scores(engine, run, piece.tokens, piece.scores, offset)
        offset += len(piece.text)
        choice = {"index": index, "text": piece.text, "logprobs": scores, "finish_reason": finish}
        return sse({**head, "choices": [choice], **more})

    async for index, event in run.events():
        if index > begun:
            begun, offset = index, 0
            if (prelude := before[index]) is not None:
                yield chunk(index, prelude, None)
        if event is None:
            yield STILL_THERE
        elif isinstance(event, Piece):
            if event.text or event.scores:
                yield chunk(index, event, None)
        elif isinstance(event, End):
            yield chunk(index, Piece("", [], ()), event.reason, timings=timings(run.jobs[-1]))
    if with_usage:
        yield sse({**head, "choices": [], "usage": usage(run)})
    yield DONE


def _scores(
    engine: Engine, run: Run, tokens: Sequence[int], scores: Sequence[TokenLogprob | None], offset: int
) -> dict[str, Any] | None:
    """Log-probabilities in the form of completions: `offset` is the place of the first token's text."""
    if run.jobs[-1].wanted.logprobs is None:
        return None
    texts = [engine.token_text(token)[0] for token in tokens]
    offsets = [*accumulate(map(len, texts), initial=offset)][:-1]
    return {
        "tokens": texts,
        "token_logprobs": [None if score is None else max(score.logprob, -9999.0) for score in scores],
        "top_logprobs": [None if score is None else _likeliest(engine, score) for score in scores],
        "text_offset": offsets,
    }


def _likeliest(engine: Engine, score: TokenLogprob) -> dict[str, float]:
    """Texts of the likeliest tokens and their log-probabilities; of two with one text the likelier."""
    return {engine.token_text(token)[0]: max(value, -9999.0) for token, value in reversed(score.top)}
