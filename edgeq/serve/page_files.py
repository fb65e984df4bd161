"""The page to chat on: files that come with the package, and nothing from elsewhere."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

FILES = {  # path -> file and media type
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def endpoint(path: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with the file of a path."""
    name, kind = FILES[path]

    async def answer(request: Request) -> Response:
        content = files("edgeq.serve").joinpath("page", name).read_bytes()
        return Response(content, media_type=kind, headers=HEADERS)

    return answer
