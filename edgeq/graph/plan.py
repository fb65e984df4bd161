"""A compiled model: the tape of a pass, and all the memory that it points to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeq.graph.kv_cache import Ring
from edgeq.kernels.layout import STEP_WORDS

TOKENS, POSITION, OUTPUTS, FIRST_OUTPUT = range(4)  # words of Plan.params


@dataclass
class Plan:
    """A tape and its memory, made by compiler.py. A call touches `params`, `tokens` or `rows`, `logits` and `taps`.

    rows: f32 [batch, width] in place of `tokens`, where the plan takes such
    taps: for each tapped matrix f32 [batch, width], whose first rows are what it read in the last pass, and whether
          they are those of output tokens only
    """

    params: np.ndarray
    tokens: np.ndarray
    logits: np.ndarray
    tape: np.ndarray
    kernels: list[str]
    caches: list[Ring]
    scratch_bytes: int
    rows: np.ndarray | None = None
    taps: Mapping[str, tuple[np.ndarray, bool]] = field(default_factory=dict)
    keep: list[object] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.tape) // STEP_WORDS

    @property
    def kv_bytes(self) -> int:
        return sum(cache.nbytes for cache in self.caches)

    def release(self) -> None:
        """Let go of weights, caches and buffers: the tape must not be run any more."""
        self.keep, self.caches, self.taps, self.rows = [], [], {}, None
