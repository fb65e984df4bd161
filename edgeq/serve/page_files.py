"""The page to chat on: files that come with the package, and nothing from elsewhere."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

SCRIPTS = (
    "page.js",
    "attachments.js",
    "chat_list.js",
    "chat_store.js",
    "chat_tree.js",
    "dom.js",
    "markdown.js",
    "message_view.js",
    "server.js",
    "settings.js",
    "vendor/marked.esm.js",
    "vendor/purify.es.mjs",
    "vendor/highlight.min.js",
)
FILES = {  # path -> file and media type
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/code.css": ("code.css", "text/css"),
    "/page.svg": ("page.svg", "image/svg+xml"),
    **{f"/{name}": (name, "text/javascript") for name in SCRIPTS},
}
HEADERS = {
    # DOMPurify alone may make nodes of markup: of a text that has been through it no script can come
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def endpoint(path: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with the file of a path."""
    name, kind = FILES[path]

    async def answer(request: Request) -> Response:
        content = files("edgeq.serve").joinpath("page", *name.split("/")).read_bytes()
        return Response(content, media_type=kind, headers=HEADERS)

    return answer
