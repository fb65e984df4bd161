"""The parts of a text, each with its own loss, and the one that lost most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.evaluate.measure import Divergence, summary
from edgeq.evaluate.predictions import Measured, Positions
from edgeq.evaluate.statistics import Values, larger_by_chance
from edgeq.evaluate.texts import Chunk

BLOCK = 64  # positions whose mean counts as one value: neighbours are not independent
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Slice:
    """A part of the text.

    chance  how likely this slice is so much further from the reference than the rest of the text by chance alone,
            corrected for the number of slices; None without a reference
    """

    name: str
    loss: Divergence
    chance: float | None = None

    @property
    def significant(self) -> bool:
        return self.chance is not None and self.chance < SIGNIFICANT


def slices(chunks: Sequence[Chunk], found: Positions) -> list[Slice]:
    """Every slice of a text, that with the largest mean KL divergence first; without reference with the largest
    perplexity. None where all of the text is one.

    A slice is compared with what is not in it, by a permutation test on means of KL over blocks of BLOCK positions: the
    two models are paired at every position. The chance is multiplied by the number of slices (Bonferroni).
    """
    names = sorted({name for chunk in chunks for name in chunk.slices})
    if len(names) < 2:
        return []
    result = []
    for name in names:
        inside = [number for number, chunk in enumerate(chunks) if name in chunk.slices]
        outside = sorted({*range(len(chunks))} - {*inside})
        part = found.select(inside)
        chance = None
        if len(part.kl) and outside:
            chance = min(1.0, len(names) * larger_by_chance(_blocks(part), _blocks(found.select(outside))))
        result.append(Slice(name, summary(part), chance))
    return sorted(result, key=_badness, reverse=True)


def _badness(found: Slice) -> float:
    return found.loss.kl.value if found.loss.kl is not None else found.loss.perplexity.value


def _blocks(found: Measured) -> Values:
    """Means of KL, f64 [blocks]; no block reaches over the end of a chunk."""
    means = []
    for number in np.unique(found.chunk):
        values = found.kl[found.chunk == number]
        count = max(1, round(len(values) / BLOCK))
        means += [part.mean() for part in np.array_split(values, count)]
    return np.array(means, np.float64)
