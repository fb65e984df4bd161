"""Several tokens in one pass, without changing any: guesses are computed along with the latest token, and the logits
after each are used as far as the sampler itself draws what was guessed.

Whatever the sampler does, a token is drawn only when it is its turn, from the bits that a pass of one would have given.
"""

from collections.abc import Sequence

from edgeq.decode.ngrams import LONGEST, Lookup

WIDTHS = (2, 4, 8)  # rows of a pass with guesses
HOPE = 0.05  # of a pass of one, what a further row is thought to cost before it was measured
GAIN = 1.2  # what a guess must promise, in tokens for the time of one
FORGET = 0.995  # what a width that was too slow is thought to cost after each time that it was not tried
LEARN = 0.5  # of what a pass tells that was faster than those before
ADAPT = 0.1  # of what a guess tells that was right or wrong

# By how many tokens were the same before it, how often a guess is right, until the text itself has told.
PRIORS = {2: 0.2, 3: 0.3, 4: 0.4, 6: 0.55, 9: 0.75, LONGEST: 0.95}


class Costs:
    """What passes take, by their rows, as it was measured lately."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def note(self, rows: int, seconds: float) -> None:
        """One more pass. One that was disturbed counts little, as none is faster than it can be."""
        before = self._seconds.get(rows, seconds)
        self._seconds[rows] = before + (LEARN if seconds < before else LEARN / 10) * (min(seconds, 2 * before) - before)

    def seconds(self, rows: int) -> float | None:
        """The time of a pass; None before there was one."""
        return self._seconds.get(rows)

    def cost(self, rows: int) -> float:
        """The time of a pass, in passes of one row."""
        if rows in self._seconds and 1 in self._seconds:
            return self._seconds[rows] / max(self._seconds[1], 1e-9)
        return 1 + HOPE * (rows - 1)

    def worth(self, chances: Sequence[float], each: float = 0.0) -> int:
        """How many guesses to compute along, where the first n of them are right with chances[n - 1], and each takes
        so long to make, in passes of one row."""
        if 1 not in self._seconds:
            return 0
        best, most = 0, GAIN
        for rows in WIDTHS:
            if rows <= len(chances) + 1:
                tokens, made = 1 + sum(chances[: rows - 1]), each * (rows - 1)
                if tokens / (self.cost(rows) + made) > most:
                    best, most = rows - 1, tokens / (self.cost(rows) + made)
                elif rows in self._seconds and tokens / (1 + HOPE * (rows - 1) + made) > most:
                    self._seconds[rows] *= FORGET
        return best


class Speculation:
    """The guesses of one generation, and how often they were right: told by all tokens, computed along or not. A
    `Guesser` of a request."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._lookup = Lookup()
        self._right = dict(PRIORS)
        self._guesses: list[int] = []  # what may come after the latest token
        self._same = 0  # how many tokens were the same before the first of them
        self._works = True

    def draft(self, tokens: list[int], room: int) -> list[int]:
        """Guesses that are worth computing along."""
        self._guesses, self._same = self._lookup.guess(tokens, max(0, min(WIDTHS[-1] - 1, room)))
        chances, chance = [], 1.0
        for number in range(len(self._guesses)):
            chance *= self._right[self._level(self._same + number)]
            chances.append(chance)
        count = self._costs.worth(chances) if self._works else 0
        del self._guesses[max(count, 1) :]
        return self._guesses[:count]

    def drawn(self, token: int) -> None:
        """What came instead of the first guess, or as it."""
        if not self._guesses:
            return
        right, level = self._guesses[0] == token, self._level(self._same)
        self._right[level] += ADAPT * (right - self._right[level])
        self._guesses = self._guesses[1:] if right else []
        self._same += 1

    def took(self, rows: int, seconds: float) -> None:
        """A pass of so many rows."""
        self._costs.note(rows, seconds)

    def stop(self) -> None:
        """Draft no more."""
        self._works = False

    @staticmethod
    def _level(same: int) -> int:
        """The key of PRIORS for so many tokens that were the same."""
        return max(level for level in PRIORS if level <= same)
