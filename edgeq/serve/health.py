"""What is answered while the engine computes: health, readiness, metrics, the names of models."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edgeq.serve.failures import Failure
from edgeq.serve.replies import Json
from edgeq.serve.roster import Entry, Roster


async def health(request: Request) -> Response:
    """The process is there."""
    return Json({"status": "ok"})


async def ready(request: Request) -> Response:
    """200 when all models are loaded; until then 503, and how far each is."""
    roster: Roster = request.app.state.roster
    facts = {"ready": roster.ready, "models": {name: entry.progress for name, entry in roster.entries.items()}}
    return Json(facts) if roster.ready else Json(facts, 503, {"Retry-After": "2"})


async def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format."""
    roster: Roster = request.app.state.roster
    engines = [(name, entry.engine) for name, entry in roster.entries.items() if entry.engine is not None]
    gauges = [("edgeq_requests_running", name, engine.running) for name, engine in engines]
    gauges += [("edgeq_requests_waiting", name, engine.waiting) for name, engine in engines]
    return PlainTextResponse(roster.metrics.text(gauges), media_type="text/plain; version=0.0.4")


async def models(request: Request) -> Response:
    """GET /v1/models."""
    roster: Roster = request.app.state.roster
    return Json({"object": "list", "data": [_facts(name, entry) for name, entry in roster.entries.items()]})


async def model(request: Request) -> Response:
    """GET /v1/models/ID."""
    roster: Roster = request.app.state.roster
    name = request.path_params["name"]
    if name not in roster.entries:
        raise Failure(404, f"there is no model {name!r:.100}", code="model_not_found", param="model")
    return Json(_facts(name, roster.entries[name]))


def _facts(name: str, entry: Entry) -> dict[str, object]:
    context = {} if entry.engine is None else {"max_model_len": entry.engine.model.context}
    return {"id": name, "object": "model", "created": int(entry.since), "owned_by": "edgeq", **context}
