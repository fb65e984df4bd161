"""A compiled model: the tape of a pass, and all the memory that it points to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeq.graph.pages import PageGroup
from edgeq.graph.row_tables import RowTables
from edgeq.kernels.layout import STEP_WORDS


@dataclass
class Plan:
    """A tape and its memory, made by compiler.py. A pass touches `tables`, `rows`, `logits` and `taps`.

    head: the first step that is done only for rows whose logits are asked for; None where there is none
    groups: of layers whose pages sequences have
    rows: f32 [batch, width] in place of token ids, where the plan takes such
    taps: for each tapped matrix f32 [batch, width], whose first rows are what it read in the last pass, and whether
          they are those of output tokens only
    rope: crc32 of the rope frequencies in use
    """

    tables: RowTables
    logits: np.ndarray
    tape: np.ndarray
    head: int | None
    kernels: list[str]
    groups: list[PageGroup]
    scratch_bytes: int
    rows: np.ndarray | None = None
    taps: Mapping[str, tuple[np.ndarray, bool]] = field(default_factory=dict)
    keep: list[object] = field(default_factory=list)
    rope: int = 0

    @property
    def steps(self) -> int:
        return len(self.tape) // STEP_WORDS

    def release(self) -> None:
        """Let go of weights and buffers: the tape must not be run any more."""
        self.keep, self.taps, self.rows = [], {}, None
