"""Filling in the middle: the tokens with which code models are told what comes before and after, as the model's files
name them, or as they are called."""

from edgeq.serve.engine import Engine
from edgeq.serve.failures import unsupported

# (before, after, middle) as families of models call these tokens
MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
)


def infill(engine: Engine, before: str, after: str) -> list[int]:
    """The prompt for what stands between two texts. Raises Failure, which names `suffix`, where the model has no tokens
    for that."""
    marks = engine.model.tokenizer.infill_ids or _known(engine)
    if not marks:
        raise unsupported("suffix", "this model has no tokens to fill in a middle")
    first, second, third = marks
    begin = [token for token in engine.encode("") if token not in engine.model.tokenizer.eos_ids]
    texts = (engine.encode(text, False, False) for text in (before, after))
    return [*begin, first, *next(texts), second, *next(texts), third]


def _known(engine: Engine) -> tuple[int, ...]:
    """The tokens whose names tell it."""
    ids = {token.content: number for number, token in engine.model.tokenizer.added.items()}
    return next((tuple(ids[mark] for mark in marks) for marks in MARKS if all(mark in ids for mark in marks)), ())
