"""A server of many replicas: all endpoints of `edgeq serve`, as an application of Ray Serve."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

from edgeq.errors import UsageError
from edgeq.ray.affinity import beginning
from edgeq.ray.answering import Workers
from edgeq.serve import bodies
from edgeq.serve.app import application
from edgeq.serve.failures import Failure, shape_of
from edgeq.serve.guard import Rules
from edgeq.serve.replies import Json
from edgeq.serve.roster import Roster

_OF_THE_SCOPE = ("method", "path", "raw_path", "query_string", "http_version", "scheme")


class Replica:
    """A model, and the server's application over it."""

    def __init__(self, workers: Workers, queue: int, rules: Rules) -> None:
        roster = Roster({workers.called: lambda say: workers.load()}, queue, workers.at_once)
        roster.load()
        if roster.failure is not None:
            raise roster.failure
        self._app = application(roster, rules)

    async def answer(self, key: str, scope: dict[str, Any], body: bytes) -> AsyncIterator[Message]:
        """What ASGI has of the answer to a request, as it comes. Who stops asking has left."""
        told: asyncio.Queue[Message | None] = asyncio.Queue()
        given = [{"type": "http.request", "body": body, "more_body": False}]
        left = asyncio.Event()

        async def receive() -> Message:
            if given:
                return given.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self._app(scope, receive, told.put)
            finally:
                told.put_nowait(None)

        work = asyncio.create_task(run())
        try:
            while (message := await told.get()) is not None:
                yield message
            await work
        finally:
            left.set()


class Door:
    """Takes requests of HTTP, and hands each to the replica that its beginning leads to."""

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas.options(stream=True)

    async def __call__(self, request: Request) -> Response:
        try:
            body = await bodies.content(request)
        except Failure as failure:
            return _refusal(request, failure)
        scope = {name: request.scope[name] for name in _OF_THE_SCOPE if name in request.scope}
        scope |= {"type": "http", "asgi": {"version": "3.0"}, "headers": request.scope["headers"], "root_path": ""}
        try:
            told, head = await self._begun(beginning(body), {**scope, "client": None, "server": None}, body)
        except RayActorError:
            return _refusal(
                request, Failure(503, "the replicas that were asked are lost: try again", code="lost", retry_after=5)
            )

        async def parts() -> AsyncIterator[bytes]:
            try:
                async for message in told:
                    yield message.get("body", b"")
            finally:
                told.cancel()

        answer = StreamingResponse(parts(), head["status"])
        answer.raw_headers = list(head["headers"])
        return answer

    async def _begun(self, key: str, scope: dict[str, Any], body: bytes) -> tuple[Any, Message]:
        """What a replica says, and the head of it. Where it is lost before, another one is asked, once: the request
        may be what it died of."""
        told = self._replicas.answer.remote(key, scope, body)
        try:
            return told, await anext(aiter(told))
        except RayActorError:
            told.cancel()  # it may be out of reach only, and compute
            told = self._replicas.answer.remote(key, scope, body)
            return told, await anext(aiter(told))


def _refusal(request: Request, failure: Failure) -> Response:
    """In the shape of the API that was asked."""
    return Json(shape_of(request.url.path)(failure), failure.status, failure.headers)


def server(
    workers: Workers,
    *,
    most: int | None = None,
    queue: int = 64,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    keys: Sequence[str] = (),
) -> serve.Application:
    """An application for `serve.run`: `workers.number` replicas, and up to `most` while there is that much to answer.

    A conversation stays with the replica that has its beginning computed, while that one has room. At each, `queue`
    requests wait beside those that are computed; where all have as much, further ones wait at the door. `hosts`,
    `origins` and `keys` are those whom it answers, as `edgeq serve` has `--allow-host`, `--allow-origin` and the lines
    of `--api-key-file`. Raises UsageError for numbers that cannot be.
    """
    if most is not None and most < workers.number:
        raise UsageError(f"server: most is {most}: give at least the number of workers, {workers.number}")
    scaled = AutoscalingConfig(
        min_replicas=workers.number, max_replicas=most or workers.number, target_ongoing_requests=workers.at_once
    )
    replicas = serve.deployment(
        Replica,
        name="edgeq",
        ray_actor_options={"num_cpus": workers.cpus},
        autoscaling_config=scaled,
        max_ongoing_requests=workers.at_once + queue,
        request_router_config=RequestRouterConfig(request_router_class="edgeq.ray.affinity:Affine"),
    )
    door = serve.deployment(Door, name="door", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=10_000)
    return door.bind(replicas.bind(workers, queue, Rules(hosts, origins, keys)))


def build(arguments: dict[str, Any]) -> serve.Application:
    """The same for a file of `serve deploy` or `serve run edgeq.ray:build model=model.eqf number=2`: `arguments` are
    the fields of `Workers` and those of `server`."""
    numbers = ("number", "cpus", "at_once", "rows", "most", "queue")
    given: dict[str, Any] = {name: int(value) if name in numbers else value for name, value in arguments.items()}
    fields: dict[str, Any] = {name: given.pop(name) for name in Workers.__dataclass_fields__ if name in given}
    try:
        return server(Workers(**fields), **given)
    except TypeError as error:
        raise UsageError(f"edgeq.ray:build: {error}") from None
