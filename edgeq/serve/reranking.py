"""POST /v1/rerank, as Jina's API and Cohere's have it."""

from typing import Any
from uuid import uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.failures import invalid
from edgeq.serve.replies import Json
from edgeq.serve.roster import Roster


class RerankRequest(msgspec.Struct, kw_only=True):
    query: str
    documents: list[Any]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    instruction: str | None = None


async def rerank(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, RerankRequest)
    name, engine = await roster.find(fields.model)
    texts = asked.texts([_text(document) for document in fields.documents], "documents")
    if fields.top_n is not None and fields.top_n < 1:
        raise invalid(f"top_n is {fields.top_n}: give at least 1", "top_n")
    scores, tokens = await engine.compute(lambda _: engine.rerank(fields.query, texts, fields.instruction))
    order = sorted(range(len(texts)), key=lambda i: -scores[i])[: fields.top_n]
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if fields.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    return Json(
        {
            "id": f"rerank-{uuid4().hex}",
            "object": "list",
            "model": name,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"tokens": {"input_tokens": tokens}, "billed_units": {"search_units": 0}},
        }
    )


def _text(document: Any) -> Any:
    """A document's text, which may be one of its fields."""
    return document.get("text") if isinstance(document, dict) else document
