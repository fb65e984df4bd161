"""The parts of a text, each with its own loss, and the one that lost most."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from edgeq.evaluate.measure import Divergence, summary
from edgeq.evaluate.predictions import Measured, Positions
from edgeq.evaluate.statistics import Values, larger_by_chance
from edgeq.evaluate.texts import Chunk

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Slice:
    """A part of the text.

    chance  how likely this slice is so much further from the reference than the rest of the text by chance alone,
            corrected for the number of slices; None without a reference
    least   the smallest chance that so few chunks allow
    """

    name: str
    loss: Divergence
    chance: float | None = None
    least: float = 0.0

    @property
    def significant(self) -> bool:
        return self.chance is not None and self.chance < SIGNIFICANT

    @property
    def decidable(self) -> bool:
        """Whether there are chunks enough for anything to be significant."""
        return self.least < SIGNIFICANT


def slices(chunks: Sequence[Chunk], found: Positions) -> list[Slice]:
    """Every slice of a text, that with the largest mean KL divergence first; without reference with the largest
    perplexity. None where all of the text is one.

    A slice is compared with what is not in it, by a permutation test on the chunks' means of KL, in which both models
    are paired at every position; positions within a chunk are not independent. The chance is multiplied by the number
    of slices (Bonferroni).
    """
    names = sorted({name for chunk in chunks for name in chunk.slices})
    if len(names) < 2:
        return []
    result = []
    for name in names:
        inside = [number for number, chunk in enumerate(chunks) if name in chunk.slices]
        outside = sorted({*range(len(chunks))} - {*inside})
        part = found.select(inside)
        chance, least = None, min(1.0, len(names) / comb(len(chunks), len(inside)))
        if len(part.kl):
            by_chance = larger_by_chance(_means(part), _means(found.select(outside)))
            chance = min(1.0, len(names) * by_chance)
        result.append(Slice(name, summary(part), chance, least))
    return sorted(result, key=_badness, reverse=True)


def _badness(found: Slice) -> float:
    return found.loss.kl.value if found.loss.kl is not None else found.loss.perplexity.value


def _means(found: Measured) -> Values:
    """Means of KL of the chunks, f64 [chunks]."""
    return np.array([found.kl[found.chunk == number].mean() for number in np.unique(found.chunk)], np.float64)
