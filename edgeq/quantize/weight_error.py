"""How far a model's weights are from those of another, on a sample: decoding all of them would take longer than
measuring what the model loses."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from edgeq.blocks.fields import F32
from edgeq.blocks.reference import decode
from edgeq.blocks.table import PANEL_ROWS, block_type, panels
from edgeq.container.reader import File

SAMPLED = 4  # panels of a matrix, evenly spread


@dataclass(frozen=True)
class Sample:
    """A panel of a matrix: its place, f32 [16 rows or less, columns] of weights, and how many such panels there are for
    each of these."""

    name: str
    panel: int
    weights: F32
    times: float


def sampled(file: File) -> list[Sample]:
    """Of every matrix of a file."""
    found = []
    for info in file.tensors.values():
        if len(info.shape) > 1:
            each = panels(info.shape[-2])
            whole = prod(info.shape[:-2]) * each
            places = np.unique(np.linspace(0, whole - 1, SAMPLED).astype(int))
            for place in places.tolist():
                weights = _panel(file, info.name, place, min(PANEL_ROWS, info.shape[-2] - place % each * PANEL_ROWS))
                found.append(Sample(info.name, place, weights, whole / len(places)))
    return found


def _panel(file: File, name: str, place: int, rows: int) -> F32:
    info = file.tensors[name]
    size = block_type(info.type).panel_bytes(info.shape[-1])
    return decode(file.data(name)[place * size : (place + 1) * size], rows, info.shape[-1], info.type)


def weight_error(sample: Iterable[Sample], other: File) -> float:
    """RMS error of a model's weights, relative to their RMS."""
    changed = whole = 0.0
    for one in sample:
        found = _panel(other, one.name, one.panel, len(one.weights))
        changed += one.times * float(np.square(found - one.weights, dtype=np.float64).sum())
        whole += one.times * float(np.square(one.weights, dtype=np.float64).sum())
    return float((changed / whole) ** 0.5) if whole else 0.0
