"""What is answered while the engine computes: health, readiness, metrics, names; models that come and go."""

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edgeq.serve import bodies
from edgeq.serve.failures import Failure
from edgeq.serve.replies import Json
from edgeq.serve.roster import UNLOADED, Entry, Roster


class NamedModel(msgspec.Struct, kw_only=True):
    model: str


async def health(request: Request) -> Response:
    """The process is there."""
    return Json({"status": "ok"})


async def ready(request: Request) -> Response:
    """200 when the first model is loaded; until then 503. How far each is."""
    roster: Roster = request.app.state.roster
    facts = {"ready": roster.ready, "models": {name: entry.progress for name, entry in roster.entries.items()}}
    return Json(facts) if roster.ready else Json(facts, 503, {"Retry-After": "2"})


async def metrics(request: Request) -> Response:
    """Counters in Prometheus' text format."""
    roster: Roster = request.app.state.roster
    engines = [(name, entry.engine) for name, entry in roster.entries.items() if entry.engine is not None]
    gauges = [("edgeq_requests_running", name, engine.running) for name, engine in engines]
    gauges += [("edgeq_requests_waiting", name, engine.waiting) for name, engine in engines]
    gauges += [("edgeq_kv_used_bytes", name, engine.kept[0]) for name, engine in engines]
    gauges += [("edgeq_kv_room_bytes", name, engine.kept[1]) for name, engine in engines]
    return PlainTextResponse(roster.metrics.text(gauges), media_type="text/plain; version=0.0.4")


async def slots(request: Request) -> Response:
    """GET /slots: what is computed now, told as llama.cpp's server tells it; never what was asked."""
    roster: Roster = request.app.state.roster
    rows: list[dict[str, object]] = []
    for name, entry in roster.entries.items():
        for job in entry.engine.jobs if entry.engine is not None and entry.card is not None else ():
            assert entry.card is not None
            done, most = job.timings.generated_tokens, job.wanted.max_tokens
            left = entry.card.context - len(job.wanted.tokens) - done if most is None else most - done
            token = {"has_next_token": True, "n_decoded": done, "n_remain": left}
            facts = {"model": name, "n_ctx": entry.card.context, "is_processing": True, "next_token": token}
            rows.append({"id": len(rows), **facts, "n_prompt_tokens": len(job.wanted.tokens)})
    if "fail_on_no_slot" in request.query_params and len(rows) >= roster.at_once:
        raise Failure(503, "no slot is free: try again", code="no_slot", retry_after=1)
    idle = ({"id": i, "is_processing": False} for i in range(len(rows), roster.at_once))
    return Json([*rows, *idle])


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


async def load(request: Request) -> Response:
    """POST /models/load: answered when the model is loaded."""
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, NamedModel)
    name, _ = await roster.find(fields.model)
    return Json({"success": True, "model": name, "status": _status(roster.entries[name])})


async def unload(request: Request) -> Response:
    """POST /models/unload: a model that is in use goes with the last answer."""
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, NamedModel)
    name = roster.named(fields.model)
    await roster.unload(name)
    return Json({"success": True, "model": name, "status": _status(roster.entries[name])})


def _facts(name: str, entry: Entry) -> dict[str, object]:
    known: dict[str, object] = {}
    if entry.card is not None:
        reads = ["text", "image"] if entry.card.sees else ["text"]
        known = {"max_model_len": entry.card.context, "architecture": {"input_modalities": reads}}
    return {
        "id": name,
        "object": "model",
        "created": int(entry.since),
        "owned_by": "edgeq",
        "status": {"value": _status(entry)},
        **known,
    }


def _status(entry: Entry) -> str:
    """As llama.cpp's server says it, "unloading" apart."""
    if entry.engine is not None:
        return "unloading" if entry.leaving else "loaded"
    return "unloaded" if entry.progress == UNLOADED else "loading"
