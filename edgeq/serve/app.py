"""The application: which path leads where, and what becomes of errors."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeq.serve import (
    anthropic_messages,
    health,
    ollama_library,
    ollama_models,
    ollama_texts,
    openai_responses,
    openapi,
    page_files,
    token_endpoints,
)
from edgeq.serve.failures import Failure, failure_of, shape_of
from edgeq.serve.guard import Guard, Rules
from edgeq.serve.openai_chat import chat_completions
from edgeq.serve.openai_completions import completions
from edgeq.serve.openai_embeddings import embeddings
from edgeq.serve.replies import Json, note
from edgeq.serve.reranking import rerank
from edgeq.serve.response_store import ResponseStore
from edgeq.serve.roster import Roster

Endpoint = Callable[[Request], Awaitable[Response]]

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    *(("GET", path, page_files.endpoint(path)) for path in page_files.FILES),
    ("GET", "/health", health.health),
    ("GET", "/ready", health.ready),
    ("GET", "/metrics", health.metrics),
    ("GET", "/slots", health.slots),
    ("GET", "/openapi.json", openapi.openapi),
    ("GET", "/v1/models", health.models),
    ("GET", "/v1/models/{name:path}", health.model),
    ("POST", "/models/load", health.load),
    ("POST", "/models/unload", health.unload),
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/embeddings", embeddings),
    ("POST", "/v1/responses", openai_responses.responses),
    ("POST", "/v1/responses/input_tokens", openai_responses.input_tokens),
    ("GET", "/v1/responses/{name}", openai_responses.stored),
    ("DELETE", "/v1/responses/{name}", openai_responses.forget),
    ("GET", "/v1/responses/{name}/input_items", openai_responses.stored_input),
    *(("POST", path, rerank) for path in ("/v1/rerank", "/v2/rerank", "/rerank")),
    ("POST", "/tokenize", token_endpoints.tokenize),
    ("POST", "/detokenize", token_endpoints.detokenize),
    ("POST", "/apply-template", token_endpoints.apply_template),
    ("POST", "/v1/messages", anthropic_messages.messages),
    ("POST", "/v1/messages/count_tokens", anthropic_messages.count_tokens),
    ("POST", "/api/chat", ollama_texts.chat),
    ("POST", "/api/generate", ollama_texts.generate),
    ("POST", "/api/embed", ollama_models.embed),
    ("GET", "/api/tags", ollama_models.tags),
    ("GET", "/api/ps", ollama_models.ps),
    ("GET", "/api/version", ollama_models.version),
    ("POST", "/api/show", ollama_models.show),
    ("POST", "/api/pull", ollama_library.pull),
    ("DELETE", "/api/delete", ollama_library.delete),
)


def application(roster: Roster, rules: Rules) -> ASGIApp:
    """The server as an ASGI application."""
    routes = [Route(path, _answered(path, endpoint), methods=[method]) for method, path, endpoint in ROUTES]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _not_there})
    app.state.roster = roster
    app.state.routes = tuple((method, path) for method, path, _ in ROUTES)
    app.state.responses = ResponseStore()

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        with roster.request():
            await app(scope, receive, send)

    return Guard(counted, rules)


def _answered(path: str, endpoint: Endpoint) -> Endpoint:
    """The endpoint, with its errors as answers, and counted."""

    async def answer(request: Request) -> Response:
        roster: Roster = request.app.state.roster
        try:
            response = await endpoint(request)
        except Exception as error:
            note(error)
            response = _failed(request, failure_of(error))
        roster.metrics.answers[path, response.status_code] += 1
        return response

    return answer


_INSTEAD = {  # of llama.cpp's server and of earlier versions of Ollama's API
    "/api/create": ": `edgeq convert` makes models",
    "/api/embeddings": ": /api/embed does that",
    "/completion": ": /v1/completions does that",
    "/completions": ": /v1/completions does that",
    "/chat/completions": ": /v1/chat/completions does that",
    "/embedding": ": /v1/embeddings does that",
    "/embeddings": ": /v1/embeddings does that",
    "/infill": ": /v1/completions does that, with a suffix",
    "/models": ": /v1/models does that",
    "/props": ": /v1/models and /slots tell of that",
}


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    what = f"there is no such endpoint{_INSTEAD.get(path, '')}" if error.status_code == 404 else error.detail.lower()
    answer = _failed(request, Failure(error.status_code, f"{request.method} {path}: {what}"))
    answer.headers.update(error.headers or {})
    return answer


def _failed(request: Request, failure: Failure) -> Response:
    return Json(shape_of(request.url.path)(failure), failure.status, failure.headers)
