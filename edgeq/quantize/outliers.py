"""Channels of what matrices read that are far larger than the others, and what scaling columns makes of them.

One scale for a whole row, or a whole input, leaves few codes for the usual channels where one is a hundred times as
large (Dettmers et al., "LLM.int8()", arXiv:2208.07339).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.container.reader import File
from edgeq.models import Architecture
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.equalize import equalizing, folds, smoothing

F32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Outlier:
    """The channel that reaches furthest in an input of a matrix.

    name     the matrix
    channel  its column, from 0
    ratio    its largest magnitude over the median of those of all channels
    energy   its share of the sum of all squares
    """

    name: str
    channel: int
    ratio: float
    energy: float

    def __str__(self) -> str:
        reach = f"channel {self.channel} reaches {self.ratio:.3g} times the median"
        return f"{self.name}: {reach}, {self.energy:.1%} of the energy"


@dataclass(frozen=True)
class Effect:
    """An outlier's ratio as it is, and after scaling; None where there is no place to fold a scale into."""

    outlier: Outlier
    equalized: float | None
    smoothed: float | None


def ratio(maxima: F32Array) -> float:
    """The largest one over the median of those that are not zero; 0 of zeros."""
    own = maxima[maxima > 0]
    return float(own.max() / np.median(own)) if len(own) else 0.0


def outliers(calibration: Calibration) -> list[Outlier]:
    """One for each input that is known, of matrices that read the same the first, the furthest first; empty for a
    calibration without sketches."""
    found: dict[bytes, Outlier] = {}
    for name, one in calibration.matrices.items():
        if one.sketch is None or not one.sketch.channel_maxima.any():
            continue
        maxima, power = one.sketch.channel_maxima, one.mean_square
        power = power.mean(0) if power.ndim > 1 else power
        channel = int(maxima.argmax())
        energy = float(power[channel] / max(float(power.sum()), 1e-30))
        layer = name.rpartition(".")[0].rpartition(".")[0]
        found.setdefault(layer.encode() + maxima.tobytes(), Outlier(name, channel, ratio(maxima), energy))
    return sorted(found.values(), key=lambda one: -one.ratio)


def effects(file: File, model: Architecture, calibration: Calibration) -> list[Effect]:
    """What equalizing and smoothing make of the outliers of `file`, of plain types."""
    shapes: Mapping[str, tuple[int, ...]] = {name: tuple(info.shape) for name, info in file.tensors.items()}
    places = {name: fold for fold in folds(model, shapes) for name in fold.readers}
    found = []
    for one in outliers(calibration):
        seen, fold = calibration.of(one.name), places.get(one.name)
        if fold is None or seen is None or seen.sketch is None:
            found.append(Effect(one, None, None))
            continue
        maxima = seen.sketch.channel_maxima
        scales = equalizing(seen.mean_square), smoothing(file, fold, maxima)
        after = [None if scale is None else ratio(maxima / scale) for scale in scales]
        found.append(Effect(one, *after))
    return found
