"""Requests answered without a network: the rows of OpenAI's batch files, each by the endpoint that it names.

An answer holds nothing that differs from run to run: ids follow from the row, so does the seed where a row gives none,
times are 0, and what a text took and what was kept of its prompt are left out.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import ASGIApp, Message

from edgeq.serve.failures import Failure, invalid, openai_shape
from edgeq.serve.replies import encode
from edgeq.version import VERSION

if TYPE_CHECKING:
    from edgeq.engine.model import Model

EVERY = 1 << 30  # requests that may wait: all

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
_DRAWN = URLS[:2] + URLS[3:]  # whose answers depend on a seed
_CHANGING = ("kv", "template", "chat_template", "lora")  # options of loading that change answers
_IDS = ("id", "call_id", "tool_call_id", "item_id")
_RANDOM = re.compile(r"[0-9A-Za-z]{8,}$")
_TIMES = ("created", "created_at", "completed_at")
_OF_THE_RUN = ("timings", "prompt_tokens_details", "input_tokens_details")


class Row(msgspec.Struct, kw_only=True):
    """A request."""

    custom_id: str
    url: str
    body: dict[str, Any]
    method: str = "POST"


def read(line: bytes) -> Row:
    """A row of a batch file. Raises Failure for what is none, and for what is not answered so."""
    try:
        row = msgspec.json.decode(line, type=Row)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid(f"the row is no request of a batch: {error}") from error
    if row.method != "POST" or row.url not in URLS:
        raise invalid(f"{row.method} {row.url:.100} is not answered in batches: POST to {', '.join(URLS)}", "url")
    if row.body.get("stream"):
        raise invalid("stream makes no sense in a batch: leave it out", "stream")
    return row


def identity(model: "Model", name: str, loading: Mapping[str, Any]) -> str:
    """What answers depend on beside their rows, as one text: a model, how it is called, the options of its loading."""
    given = {key: value for key, value in loading.items() if value and key in _CHANGING}
    options = sorted((key, str(value)) for key, value in given.items())
    return repr((VERSION, name, model.file.nbytes, sorted(model.file.metadata.items()), model.context, options))


def digest(line: bytes) -> str:
    """What a row is known by."""
    return hashlib.sha256(line.strip()).hexdigest()


def refusal(line: bytes, failure: Failure) -> dict[str, Any]:
    """The answer to a row that is no request."""
    try:
        custom_id = msgspec.json.decode(line)["custom_id"]
    except (msgspec.MsgspecError, UnicodeError, LookupError, TypeError, RecursionError):
        custom_id = None  # no JSON, or no object with such a key
    what = {"code": failure.code or "invalid_request", "message": failure.message}
    name = custom_id if isinstance(custom_id, str) else None
    return {"id": f"batch_req_{digest(line)[:24]}", "custom_id": name, "response": None, "error": what}


async def answer(app: ASGIApp, line: bytes, row: Row) -> dict[str, Any]:
    """The answer to a row, as the server's endpoint gives it."""
    name, body = digest(line), row.body
    if row.url in _DRAWN and body.get("seed") is None:
        body = {**body, "seed": int(name[:7], 16)}
    status, content = await _post(app, row.url, encode(body))
    try:
        told = msgspec.json.decode(content)
    except msgspec.DecodeError:
        told = openai_shape(Failure(500, "the endpoint gave no JSON"))
        status = 500
    response = {"status_code": status, "request_id": name[:24], "body": _settled(told, _names(name))}
    return {"id": f"batch_req_{name[:24]}", "custom_id": row.custom_id, "response": response, "error": None}


async def _post(app: ASGIApp, path: str, content: bytes) -> tuple[int, bytes]:
    """What an ASGI application answers: status and body."""
    given = [{"type": "http.request", "body": content, "more_body": False}]
    status, parts = 500, list[bytes]()

    async def receive() -> Message:
        if given:
            return given.pop()
        await asyncio.Event().wait()  # a client that does not leave
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    place = {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers}
    await app({**scope, **place, "client": None, "server": ("localhost", 80)}, receive, send)
    return status, b"".join(parts)


def _names(seed: str) -> Iterator[str]:
    """Ids that follow from a row's."""
    number = 0
    while True:
        yield hashlib.sha256(f"{seed}{number}".encode()).hexdigest()[:24]
        number += 1


def _settled(value: Any, names: Iterator[str], known: dict[str, str] | None = None) -> Any:
    """An answer without what differs from run to run; one id stays one id."""
    known = {} if known is None else known
    if isinstance(value, list):
        return [_settled(one, names, known) for one in value]
    if not isinstance(value, dict):
        return value
    settled = {}
    for key, one in value.items():
        if key in _OF_THE_RUN:
            continue
        if key in _TIMES and isinstance(one, int | float):
            one = 0
        elif key in _IDS and isinstance(one, str):
            if one not in known:
                known[one] = _RANDOM.sub(lambda _: next(names), one, count=1)
            one = known[one]
        settled[key] = _settled(one, names, known)
    return settled
