"""POST /api/pull and DELETE /api/delete, as Ollama's clients ask: models that come and go while the server runs, where
it was told to let them."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edgeq.serve import bodies
from edgeq.serve.failures import Failure, failure_of, invalid, ollama_shape
from edgeq.serve.replies import Json, line, note
from edgeq.serve.roster import Roster

# A short name, or a repository, of which host also; and a type. Never a path of this machine.
_NAME = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+){0,2}(:[\w.-]+)?", re.ASCII)
_DONE = {"status": "success"}


class PullRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    name: str | None = None  # as older clients call it
    stream: bool | None = None


class DeleteRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    name: str | None = None


async def pull(request: Request) -> Response:
    """Fetch a model, to be served by that name; one that is there already stays as it is."""
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, PullRequest)
    name = _named(fields.model or fields.name)
    told = asyncio.Queue[dict[str, Any] | None]()
    work = asyncio.ensure_future(_fetched(roster, name, told))
    if fields.stream is False:
        await work
        return Json(_DONE)
    return StreamingResponse(_lines(told, work), media_type="application/x-ndjson")


async def _fetched(roster: Roster, name: str, told: "asyncio.Queue[dict[str, Any] | None]") -> None:
    """`told` hears how far it is, and None at the end."""
    loop = asyncio.get_running_loop()

    def tell(status: str, done: int | None = None, total: int | None = None) -> None:
        sizes = {} if total is None else {"digest": name, "total": total, "completed": done}
        loop.call_soon_threadsafe(told.put_nowait, {"status": status, **sizes})

    try:
        await roster.fetch(name, tell)
    finally:
        told.put_nowait(None)


async def _lines(told: "asyncio.Queue[dict[str, Any] | None]", work: "asyncio.Future[None]") -> AsyncIterator[bytes]:
    """A client that leaves does not end the work: what is fetched already would be in vain."""
    while (one := await told.get()) is not None:
        yield line(one)
    try:
        await work
    except Exception as error:
        note(error)
        yield line(ollama_shape(failure_of(error)))
        return
    yield line(_DONE)


async def delete(request: Request) -> Response:
    """Serve a model no more, and remove its file; those that the server was started with stay."""
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, DeleteRequest)
    await roster.forget(_named(fields.model or fields.name))
    return Response()


def _named(name: str | None) -> str:
    if not name:
        raise invalid("model is missing: the model's name", "model")
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise Failure(400, f"model is {name!r:.60}: give a short name, or a repository owner/name", param="model")
    return name
