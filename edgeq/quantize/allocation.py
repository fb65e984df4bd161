"""Which type each matrix gets, so that the predicted loss is least at a size, or the size least at a loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Candidate:
    """A type that a matrix may have: bytes that it takes, loss that it is predicted to add."""

    type: str
    nbytes: int
    loss: float


@dataclass(frozen=True)
class Step:
    """A change of one matrix to a larger type."""

    name: str
    to: Candidate
    nbytes: int
    gain: float

    @property
    def worth(self) -> float:
        """Loss that a byte saves."""
        return self.gain / self.nbytes


def hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those worth having, smallest first: each further byte saves less than the one before."""
    best: list[Candidate] = []
    for one in sorted(candidates, key=lambda c: (c.nbytes, c.loss)):
        if best and one.loss >= best[-1].loss:
            continue
        while len(best) > 1 and _slope(best[-2], best[-1]) <= _slope(best[-1], one):
            best.pop()
        best.append(one)
    return best


def _slope(a: Candidate, b: Candidate) -> float:
    return (a.loss - b.loss) / max(b.nbytes - a.nbytes, 1)


def allocate(
    candidates: Mapping[str, Sequence[Candidate]], nbytes: float = float("inf"), loss: float = 0.0
) -> dict[str, Candidate]:
    """A candidate for each matrix, by name: the least loss within `nbytes`, or the fewest bytes within `loss`.

    Goes from the smallest types up, by the changes that save most per byte, until nothing fits, or the loss is small
    enough: the optimum of the relaxed problem, filled up. The smallest types even if these take more than `nbytes`.
    """
    hulls = {name: hull(found) for name, found in candidates.items()}
    chosen = {name: found[0] for name, found in hulls.items()}
    steps = [
        Step(name, b, b.nbytes - a.nbytes, a.loss - b.loss) for name, found in hulls.items() for a, b in pairwise(found)
    ]
    size, lost = sum(one.nbytes for one in chosen.values()), sum(one.loss for one in chosen.values())
    full: set[str] = set()
    for step in sorted(steps, key=lambda step: -step.worth):  # within a matrix, each is worth less than the one before
        if lost <= loss:
            break
        if step.name in full:
            continue
        if size + step.nbytes > nbytes:
            full.add(step.name)
            continue
        chosen[step.name] = step.to
        size, lost = size + step.nbytes, lost - step.gain
    return chosen
