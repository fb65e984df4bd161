"""A model's perplexity on some positions of a text, from what its head reads: no other logits are computed."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.blocks.reference import decode
from edgeq.blocks.table import PANEL_ROWS, tensor_bytes
from edgeq.container.reader import File
from edgeq.models.composition import Head
from edgeq.quantize.calibration import F32Array

POSITIONS = 4096  # about so many of all texts together
OF_SEQUENCE = 64  # at most so many of a sequence
ROWS = 4096  # of the head at a time, a multiple of a panel's


class Positions:
    """States before the head, and the tokens that came next, of some positions in the second halves of sequences."""

    def __init__(self, width: int, sequences: int) -> None:
        self._each = min(max(POSITIONS // sequences, 1), OF_SEQUENCE)
        self._states = np.empty((0, width), np.float32)
        self._next = np.empty((0, 2), np.int64)  # the token, the corpus

    @property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that was kept, by name."""
        return {"states": self._states, "next": self._next}

    def restore(self, states: F32Array, following: npt.NDArray[np.int64]) -> None:
        """Go on with what `state` gave."""
        self._states, self._next = states, following

    def add(self, corpus: int, states: F32Array, tokens: npt.NDArray[np.int64]) -> None:
        """Keep positions of a sequence: its states f32 [tokens, width], its tokens."""
        last = len(tokens) - 1  # nothing comes after the last one
        if last > 0:
            places = np.unique(np.linspace(last // 2, last - 1, self._each).astype(np.int64))
            following = np.stack([tokens[places + 1], np.full(len(places), corpus)], 1)
            self._states = np.concatenate([self._states, states[places]])
            self._next = np.concatenate([self._next, following])

    def perplexities(self, file: File, head: Head, corpora: int) -> list[float]:
        """exp(mean negative log-likelihood) of the positions of each corpus, to four digits, as the last bits are those
        of the library that multiplies; NaN of one that has none."""
        losses = self._losses(file, head)
        of = [losses[self._next[:, 1] == corpus] for corpus in range(corpora)]
        return [float(f"{np.exp(one.mean()):.4g}") if len(one) else float("nan") for one in of]

    def _losses(self, file: File, head: Head) -> npt.NDArray[np.float64]:
        """f64 [positions]: a running log-sum-exp over a part of the vocabulary after the other."""
        info, name = file.tensors[f"{head.matrix.name}.weight"], head.matrix.name
        data, count = file.data(f"{name}.weight"), len(self._states)
        bias = file.data(f"{name}.bias").view(np.float32) if head.matrix.bias else None
        largest, total, wanted = np.full(count, -np.inf), np.zeros(count), np.zeros(count)
        panel = tensor_bytes(info.type, (PANEL_ROWS, info.shape[1]))
        for first in range(0, info.shape[0], ROWS):
            rows = min(ROWS, info.shape[0] - first)
            start = first // PANEL_ROWS * panel
            part = data[start : start + tensor_bytes(info.type, (rows, info.shape[1]))]
            logits = self._states @ decode(part, rows, info.shape[1], info.type).astype(np.float32).T
            if bias is not None:
                logits += bias[first : first + rows]
            if head.factor is not None:
                logits *= head.factor
            if head.cap:
                logits = head.cap * np.tanh(logits / head.cap)
            new = np.maximum(largest, logits.max(1))
            total = total * np.exp(largest - new) + np.exp(logits - new[:, None]).sum(1)
            largest = new
            here = np.flatnonzero((self._next[:, 0] >= first) & (self._next[:, 0] < first + rows))
            wanted[here] = logits[here, self._next[here, 0] - first]
        return largest + np.log(total) - wanted
