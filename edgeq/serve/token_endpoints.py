"""POST /tokenize, /detokenize and /apply-template: what a model reads, as llama.cpp's and vLLM's servers tell it."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.executor import in_thread
from edgeq.serve.failures import invalid
from edgeq.serve.replies import Json
from edgeq.serve.roster import Roster


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """`content`, without what the model expects around a text, or `prompt`, with it."""

    content: str | None = None
    prompt: str | None = None
    model: str | None = None
    add_special: bool | None = None
    add_special_tokens: bool | None = None
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[int]
    model: str | None = None


class TemplateRequest(msgspec.Struct, kw_only=True):
    messages: list[dict[str, Any]]
    model: str | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


async def tokenize(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, TokenizeRequest)
    _, engine = await roster.find(fields.model)
    text = fields.content if fields.content is not None else fields.prompt
    if text is None:
        raise invalid("content is missing: the text to be tokenized", "content")
    given = fields.add_special if fields.add_special is not None else fields.add_special_tokens
    add_special = fields.content is None if given is None else given
    tokens = await in_thread(engine.encode, text, add_special, fields.parse_special)
    said: list[Any] = tokens
    if fields.with_pieces:
        said = [{"id": token, "piece": _piece(*engine.token_text(token))} for token in tokens]
    return Json({"tokens": said, "count": len(tokens), "max_model_len": engine.model.context})


async def detokenize(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, DetokenizeRequest)
    _, engine = await roster.find(fields.model)
    outside = next((token for token in fields.tokens if not 0 <= token < engine.model.vocab_size), None)
    if outside is not None:
        raise invalid(f"token {outside} is not in the model's vocabulary of {engine.model.vocab_size}", "tokens")
    text = await in_thread(engine.model.tokenizer.decode, fields.tokens, True)
    return Json({"content": text, "prompt": text})


async def apply_template(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, TemplateRequest)
    _, engine = await roster.find(fields.model)
    talk = asked.messages(fields.messages)
    variables, tools = fields.chat_template_kwargs, fields.tools or None
    prompt = await in_thread(lambda: engine.speaker.render(talk, variables, tools))
    return Json({"prompt": prompt})


def _piece(text: str, data: bytes) -> str | list[int]:
    """A token's text; its bytes where they are no whole characters."""
    return list(data) if "\ufffd" in text else text
