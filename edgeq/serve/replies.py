"""How answers leave: as a whole or bit by bit, and what happens where the client has left first."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgeq.errors import EdgeqError
from edgeq.serve.choices import Choice, Run
from edgeq.serve.failures import Failure, failure_of

LOG = logging.getLogger("edgeq.serve")

LEFT = 499  # the status of an answer that its client does not wait for, as nginx has it

encode = msgspec.json.encode


class Json(Response):
    """Plain data as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encode(content)


def sse(value: Any, event: str | None = None) -> bytes:
    """A server-sent event of plain data."""
    return (b"" if event is None else b"event: %b\n" % event.encode()) + b"data: %b\n\n" % encode(value)


def line(value: Any) -> bytes:
    """A line of NDJSON."""
    return encode(value) + b"\n"


class Streamed(Response):
    """Frames as they come. A client that leaves cancels the run; what fails meanwhile becomes a frame of its own."""

    def __init__(
        self, run: Run, frames: AsyncIterator[bytes], failed: Callable[[Failure], bytes], media_type: str
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **run.headers}
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._run, self._frames, self._failed = run, frames, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(_cancel_when_left(receive, self._run))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for frame in self._until_failure():
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._run.cancel()
            watch.cancel()

    async def _until_failure(self) -> AsyncIterator[bytes]:
        try:
            async for frame in self._frames:
                yield frame
        except Exception as error:
            note(error)
            yield self._failed(failure_of(error))


async def whole(request: Request, run: Run) -> list[Choice]:
    """All texts of a run; a client that leaves meanwhile cancels it. Raises Failure, which nobody hears, then."""
    watch = asyncio.create_task(_cancel_when_left(request.receive, run))
    try:
        choices = await run.whole()
        if run.cancelled:
            raise Failure(LEFT, "the client left")
        return choices
    finally:
        run.cancel()
        watch.cancel()


async def exhaust(request: Request, run: Run, frames: AsyncIterator[bytes]) -> None:
    """Let a stream's frames come and go, for what they leave behind. As `whole` where the client leaves."""
    watch = asyncio.create_task(_cancel_when_left(request.receive, run))
    try:
        async for _ in frames:
            pass
        if run.cancelled:
            raise Failure(LEFT, "the client left")
    finally:
        run.cancel()
        watch.cancel()


async def _cancel_when_left(receive: Receive, run: Run) -> None:
    with contextlib.suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            pass
    run.cancel()


def note(error: Exception) -> None:
    """Log a fault of ours, by its place in the program: never what was asked."""
    if isinstance(error, Failure | EdgeqError):
        return
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else "?"
    LOG.error("%s at %s", type(error).__name__, place)
