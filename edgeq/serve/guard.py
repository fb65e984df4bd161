"""Who may ask: the names that the server answers to, pages of other origins, API keys."""

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeq.serve import page_files
from edgeq.serve.failures import Failure, shape_of
from edgeq.serve.replies import Json

HEADERS = 64 << 10  # bytes of a request's headers
OPEN = (*page_files.FILES, "/health", "/ready")  # need no key


@dataclass(frozen=True)
class Rules:
    """hosts    names that the server answers to beside localhost and addresses in numbers
    origins  of web pages that may ask beside the server's own; "*" is any
    keys     of which a client must have one; none is needed where there are none
    """

    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    keys: Sequence[str] = ()


class Guard:
    """ASGI middleware that refuses whoever the rules do not admit.

    A browser sends what a page's script asks for to any server that a name leads to: a name that its owner leads to
    this machine is told by `Host`, a page of somebody else's by `Origin`.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules
        self._hosts = {"localhost", *(name.lower() for name in rules.hosts)}
        self._keys = [sha256(key.encode()).digest() for key in rules.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        foreign = origin is not None and not self._is_own(origin, headers.get("host", ""))
        try:
            self._check(scope, headers, origin if foreign else None)
        except Failure as failure:
            answer = Json(shape_of(scope["path"])(failure), failure.status, failure.headers)
            await answer(scope, receive, send)
            return
        if not foreign:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=_allowed(origin or "", headers))(scope, receive, send)
        else:

            async def marked(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).update(
                        {"Access-Control-Allow-Origin": origin or "", "Vary": "Origin"}
                    )
                await send(message)

            await self._app(scope, receive, marked)

    def _check(self, scope: Scope, headers: Headers, foreign: str | None) -> None:
        if sum(len(name) + len(value) + 4 for name, value in headers.raw) > HEADERS:
            raise Failure(431, f"the headers are larger than {HEADERS >> 10} KiB: send less")
        host = headers.get("host", "")
        if not self._answers_to(host):
            raise Failure(403, f"this server does not answer to the name {host!r:.100}: --allow-host admits it")
        if foreign is not None:
            if "*" not in self._rules.origins and foreign not in self._rules.origins:
                raise Failure(403, f"pages of {foreign!r:.100} may not ask here: --allow-origin admits them")
            if scope["method"] == "OPTIONS":
                return  # which browsers send without a key
        if self._keys and scope["path"] not in OPEN:
            self._check_key(headers)

    def _check_key(self, headers: Headers) -> None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not given:
            raise Failure(401, "this server wants an API key: send it as Authorization: Bearer KEY, or x-api-key")
        digest = sha256(given.encode("utf-8", "surrogateescape")).digest()
        if sum(hmac.compare_digest(digest, key) for key in self._keys) == 0:
            raise Failure(401, "the API key is wrong", code="invalid_api_key")

    def _answers_to(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
        except ValueError:
            return False
        return name in self._hosts or _is_address(name)

    def _is_own(self, origin: str, host: str) -> bool:
        return bool(host) and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _allowed(origin: str, headers: Headers) -> dict[str, str]:
    wanted = headers.get("access-control-request-headers", "authorization, content-type, x-api-key")
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": wanted,
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
    }
