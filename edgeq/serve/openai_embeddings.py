"""POST /v1/embeddings."""

import base64
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgeq.serve import asked, bodies
from edgeq.serve.failures import unsupported
from edgeq.serve.replies import Json
from edgeq.serve.roster import Roster

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    input: str | list[Any]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


async def embeddings(request: Request) -> Response:
    roster: Roster = request.app.state.roster
    fields, _ = await bodies.read(request, EmbeddingRequest)
    name, engine = await roster.find(fields.model)
    texts = asked.inputs(fields.input, "input")
    vectors, tokens = await engine.compute(lambda _: engine.embed(texts, cut=False))
    if fields.dimensions not in (None, vectors.shape[1]):
        raise unsupported("dimensions", f"the model's vectors have {vectors.shape[1]} values")
    as_text = fields.encoding_format == "base64"
    return Json(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": _base64(vector) if as_text else vector.tolist()}
                for i, vector in enumerate(vectors)
            ],
            "model": name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _base64(vector: "npt.NDArray[np.float32]") -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
