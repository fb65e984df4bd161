"""Models whose predictions are a table: what follows a token depends on it and on its place, and on nothing else."""

from types import SimpleNamespace

import numpy as np
import small_tokenizers as small
from counting import CountingSession, MemoryFile

from edgeq.engine.model import Model

VOCAB = 270


class TableSession(CountingSession):
    """Logits are `table[token]`, turned by the position; those of tokens in `worse` get noise."""

    def __init__(self, seed: int = 0, noise: float = 0.0, worse: str = "", context: int = 128):
        super().__init__(context=context, vocab=VOCAB)
        self.table = np.random.default_rng(seed).normal(0, 3, (VOCAB, VOCAB)).astype(np.float32)
        change = np.random.default_rng(99).normal(0, 1, (VOCAB, VOCAB)).astype(np.float32)
        self.table += noise * change
        for token in worse.encode():
            self.table[token] += 2 * change[token]

    def eval(self, tokens, all_logits=False):
        first = self.position
        assert first + len(tokens) <= self.context
        self.position += len(tokens)
        self.evaluated += tokens
        rows = [np.roll(self.table[token], first + i) for i, token in enumerate(tokens)]
        return np.array(rows if all_logits else rows[-1:], np.float32)


def table_model(path: str = "table.eqf", **session) -> Model:
    file = MemoryFile(small.byte_level_assets(), VOCAB)
    file.path = path
    marks = {"name": "token_embd.weight", "crc32": hash(tuple(sorted(session.items()))) & 0xFFFF}
    file.tensors = {"token_embd.weight": SimpleNamespace(shape=(VOCAB, 8), nbytes=4 * VOCAB, type="Q4_0", **marks)}
    return Model(file, TableSession(**session))


def log_probabilities(model: Model, ids: list[int]) -> np.ndarray:
    """f64 [tokens, vocab], by hand."""
    logits = model.logits(ids).astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
