"""GET /api/tags, /api/ps and /api/version, POST /api/show and /api/embed, as Ollama's clients ask."""

import hashlib
import json
import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.engine import Engine
from edgeq.serve.failures import invalid, unsupported
from edgeq.serve.ollama_texts import now
from edgeq.serve.replies import Json
from edgeq.serve.roster import Entry, Roster
from edgeq.version import VERSION


class ShowRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    name: str | None = None  # as older clients call it


class EmbedRequest(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[Any]
    truncate: bool | None = None
    dimensions: int | None = None


async def version(request: Request) -> Response:
    return Json({"version": VERSION})


async def tags(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    return Json({"models": [_row(name, entry, entry.engine) for name, entry in roster.entries.items() if entry.engine]})


async def ps(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    rows = []
    for name, entry in roster.entries.items():
        if entry.engine is not None:
            row = _row(name, entry, entry.engine)
            del row["modified_at"]
            context = entry.engine.model.context
            rows.append({**row, "expires_at": now(253402300799), "size_vram": 0, "context_length": context})
    return Json({"models": rows})


async def show(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, ShowRequest)
    if not (fields.model or fields.name):
        raise invalid("model is missing: the model to be shown", "model")
    name, engine = roster.find(fields.model or fields.name)
    model, kind = engine.model, _kind(engine)
    template = model.chat_template.source(model.chat_template.names[0]) if model.has_chat_template else ""
    return Json(
        {
            "modelfile": f"# served by edgeq {VERSION}\nFROM {name}\n",
            "parameters": "\n".join(f"{key} {value}" for key, value in model.sampling_defaults.items()),
            "template": template,
            "details": _details(engine),
            "model_info": {
                "general.architecture": kind,
                "general.parameter_count": model.parameters,
                f"{kind}.context_length": model.context,
                f"{kind}.vocab_size": model.vocab_size,
            },
            "capabilities": _capabilities(engine),
            "modified_at": now(roster.entries[name].since),
        }
    )


def _capabilities(engine: Engine) -> list[str]:
    """What the model can do, in Ollama's words."""
    if engine.model.session.states:
        return ["embedding"]
    if not engine.model.has_chat_template:
        return ["completion", "embedding"]
    found = ["tools"] if engine.dialect.lists_tools else []
    return ["completion", "embedding", *found, *(["thinking"] if engine.dialect.thinks else [])]


async def embed(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, EmbedRequest)
    began = time.perf_counter()
    _, engine = roster.find(fields.model)
    texts = asked.texts(fields.input, "input")
    vectors, tokens = await engine.compute(lambda _: engine.embed(texts, cut=fields.truncate is not False))
    if fields.dimensions not in (None, vectors.shape[1]):
        raise unsupported("dimensions", f"the model's vectors have {vectors.shape[1]} values")
    took = int((time.perf_counter() - began) * 1e9)
    counts = {"total_duration": took, "load_duration": 0, "prompt_eval_count": tokens}
    return Json({"model": fields.model, "embeddings": vectors.tolist(), **counts})


def _row(name: str, entry: Entry, engine: Engine) -> dict[str, Any]:
    file = engine.model.file
    identity = json.dumps([file.nbytes, file.metadata], sort_keys=True, default=str).encode()
    return {
        "name": name,
        "model": name,
        "modified_at": now(entry.since),
        "size": file.nbytes,
        "digest": hashlib.sha256(identity).hexdigest(),
        "details": _details(engine),
    }


def _details(engine: Engine) -> dict[str, Any]:
    kind, origin = _kind(engine), engine.model.file.metadata.get("provenance", {})
    return {
        "parent_model": "",
        "format": "eqf",
        "family": kind,
        "families": [kind],
        "parameter_size": _count(engine.model.parameters),
        "quantization_level": str(origin.get("recipe", "unknown")) if isinstance(origin, dict) else "unknown",
    }


def _kind(engine: Engine) -> str:
    return str(engine.model.file.metadata.get("architecture", "unknown"))


def _count(number: int) -> str:
    """A count with the unit that Ollama gives it: 134515008 -> "134.52M"."""
    scale, unit = (1e9, "B") if number >= 1e9 else (1e6, "M") if number >= 1e6 else (1e3, "K")
    return f"{number / scale:.4g}{unit}"
