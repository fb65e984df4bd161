"""GET /api/tags, /api/ps and /api/version, POST /api/show and /api/embed, as Ollama's clients ask."""

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.engine import Engine
from edgeq.serve.failures import invalid, unsupported
from edgeq.serve.ollama_texts import kept, now
from edgeq.serve.replies import Json
from edgeq.serve.roster import Card, Entry, Roster
from edgeq.version import VERSION

NEVER = 253402300799.0  # the last second of the year 9999


class ShowRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    name: str | None = None  # as older clients call it


class EmbedRequest(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[Any]
    truncate: bool | None = None
    dimensions: int | None = None
    keep_alive: float | str | None = None


async def version(request: Request) -> Response:
    return Json({"version": VERSION})


async def tags(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    return Json({"models": [_row(name, entry) for name, entry in roster.entries.items()]})


async def ps(request: Request) -> Response:
    """Models that are loaded, and until when."""
    roster: Roster = request.app.state.roster
    rows = []
    for name, entry in roster.entries.items():
        if entry.engine is not None and entry.card is not None:
            row = {**_row(name, entry), "size": entry.card.memory, "size_vram": 0, "expires_at": now(_expires(entry))}
            del row["modified_at"]
            rows.append({**row, "context_length": entry.card.context})
    return Json({"models": rows})


def _expires(entry: Entry) -> float:
    """When a model will be unloaded if nobody asks it any more, seconds of the epoch."""
    if entry.expires is not None:
        return entry.expires
    return min(time.time() + (0 if entry.leaving else entry.keep_s), NEVER) if entry.users else NEVER


async def show(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, ShowRequest)
    if not (fields.model or fields.name):
        raise invalid("model is missing: the model to be shown", "model")
    name, engine = await roster.find(fields.model or fields.name)
    model, card = engine.model, roster.entries[name].card
    assert card is not None
    kind = card.architecture
    template = model.chat_template.source(model.chat_template.names[0]) if model.has_chat_template else ""
    return Json(
        {
            "modelfile": f"# served by edgeq {VERSION}\nFROM {name}\n",
            "parameters": "\n".join(f"{key} {value}" for key, value in model.sampling_defaults.items()),
            "template": template,
            "details": _details(card),
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
    found = (["vision"] if engine.model.sees else []) + (["tools"] if engine.dialect.lists_tools else [])
    return ["completion", "embedding", *found, *(["thinking"] if engine.dialect.thinks else [])]


async def embed(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, EmbedRequest)
    began = time.perf_counter()
    name, engine = await roster.find(fields.model)
    roster.keep(name, kept(fields.keep_alive))
    texts = asked.texts(fields.input, "input")
    vectors, tokens = await engine.compute(lambda _: engine.embed(texts, cut=fields.truncate is not False))
    if fields.dimensions not in (None, vectors.shape[1]):
        raise unsupported("dimensions", f"the model's vectors have {vectors.shape[1]} values")
    took = int((time.perf_counter() - began) * 1e9)
    counts = {"total_duration": took, "load_duration": 0, "prompt_eval_count": tokens}
    return Json({"model": fields.model, "embeddings": vectors.tolist(), **counts})


def _row(name: str, entry: Entry) -> dict[str, Any]:
    card = entry.card
    return {
        "name": name,
        "model": name,
        "modified_at": now(entry.since),
        "size": 0 if card is None else card.nbytes,  # not known before it was loaded once
        "digest": "" if card is None else card.digest,
        "details": _details(card),
    }


def _details(card: Card | None) -> dict[str, Any]:
    known = {} if card is None else {"parameter_size": _count(card.parameters), "quantization_level": card.recipe}
    family = {} if card is None else {"family": card.architecture, "families": [card.architecture]}
    return {"parent_model": "", "format": "eqf", **family, **known}


def _count(number: int) -> str:
    """A count with the unit that Ollama gives it: 134515008 -> "134.52M"."""
    scale, unit = (1e9, "B") if number >= 1e9 else (1e6, "M") if number >= 1e6 else (1e3, "K")
    return f"{number / scale:.4g}{unit}"
