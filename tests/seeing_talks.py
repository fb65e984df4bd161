"""Chats with images, evaluated piece by piece: what tests of models that see have in common."""

from typing import Any

import numpy as np

import edgeq
from edgeq.runtime.program import Part, Program


def last_logits(
    model: edgeq.Model,
    talk: list[dict[str, Any]],
    *ends: int,
    program: Program | None = None,
    beside: bool = False,
) -> np.ndarray:
    """Of the last eight tokens of a chat of one message, evaluated in pieces that end there; `beside` another text in
    each pass."""
    sight = model.sight([part["image"] for part in talk[0]["content"] if part["type"] == "image"])
    assert sight is not None
    program, mixed = program or model.session.program, sight.mixed(model.chat_tokens(talk))
    keys, sequence, other, found = np.array(mixed.keys), program.sequence(), program.sequence(), []
    for start, end in zip([0, *ends], [*ends, len(keys)], strict=True):
        parts = [Part(sequence, keys[start:end], range(end - start), given=mixed.given)]
        if beside:
            parts.insert(0, Part(other, np.arange(3), range(1)))
        found.append(program.step(parts)[-1])
    return np.concatenate(found)[-8:]
