"""Channels that are far larger than others in what a model's matrices read of a text."""

from collections.abc import Sequence

from edgeq.engine.model import Model
from edgeq.errors import MemoryLimitError
from edgeq.evaluate.texts import Chunk
from edgeq.quantize import collect
from edgeq.quantize.outliers import Effect, effects


def activation_outliers(model: Model, chunks: Sequence[Chunk]) -> list[Effect]:
    """The furthest first, and what scaling columns would make of each. Empty for a model without layers that are known,
    or where there is no room to look."""
    file = model.file
    if not any(name.startswith("blk.") for name in file.tensors) or not model.session.model.writes_text:
        return []
    passages = [collect.Passage("", list(chunk.ids)) for chunk in chunks]
    try:
        seen = collect.calibrate(file, passages, threads=model.session.threads)
    except MemoryLimitError:
        return []
    return effects(file, model.session.model, seen)
