"""GET /openapi.json: what the server answers, as OpenAPI 3.1 says it; bodies are those that the endpoints read."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import (
    anthropic_messages,
    health,
    ollama_library,
    ollama_models,
    ollama_texts,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_responses,
    reranking,
    token_endpoints,
)
from edgeq.serve.replies import Json
from edgeq.version import VERSION

BODIES: dict[str, type[msgspec.Struct]] = {
    "/v1/chat/completions": openai_chat.ChatRequest,
    "/v1/completions": openai_completions.CompletionRequest,
    "/v1/embeddings": openai_embeddings.EmbeddingRequest,
    **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), reranking.RerankRequest),
    "/v1/responses": openai_responses.ResponsesRequest,
    "/v1/responses/input_tokens": openai_responses.InputRequest,
    "/v1/messages": anthropic_messages.MessagesRequest,
    "/v1/messages/count_tokens": anthropic_messages.CountRequest,
    "/api/chat": ollama_texts.ChatRequest,
    "/api/generate": ollama_texts.GenerateRequest,
    "/api/embed": ollama_models.EmbedRequest,
    "/api/show": ollama_models.ShowRequest,
    "/api/pull": ollama_library.PullRequest,
    "/api/delete": ollama_library.DeleteRequest,
    "/tokenize": token_endpoints.TokenizeRequest,
    "/detokenize": token_endpoints.DetokenizeRequest,
    "/apply-template": token_endpoints.TemplateRequest,
    "/models/load": health.NamedModel,
    "/models/unload": health.NamedModel,
}
_ANSWERS = {
    "200": {"description": "The answer"},
    "400": {"description": "The request cannot be followed: which field of it, and why"},
    "401": {"description": "A key is needed"},
    "429": {"description": "Too many requests wait"},
    "503": {"description": "The model is being loaded"},
}


@cache
def document(routes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The document of (method, path) routes."""
    schemas, components = msgspec.json.schema_components(BODIES.values(), ref_template="#/components/schemas/{name}")
    bodies = dict(zip(BODIES, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for method, route in routes:
        path = re.sub(r":\w+}", "}", route)
        operation: dict[str, Any] = {"responses": _ANSWERS}
        names = re.findall(r"{(\w+)}", path)
        if names:
            text = {"type": "string", "minLength": 1}
            operation["parameters"] = [{"name": n, "in": "path", "required": True, "schema": text} for n in names]
        if route in bodies:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": bodies[route]}}}
        paths.setdefault(path, {})[method.lower()] = operation
    keys = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgeq", "version": VERSION},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": keys},
        "security": [{}, {"key": []}],
    }


async def openapi(request: Request) -> Response:
    return Json(document(request.app.state.routes))
