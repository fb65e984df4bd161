"""Guesses how a text goes on: as it went on the last time that it was like its end."""

from collections.abc import Sequence

PAIR = 2  # tokens that must be the same
LONGEST = 16  # of so many it makes no difference whether there are more
LATEST = 8  # earlier places of a pair that are looked at


class Lookup:
    """Knows where in one text, which only grows, each pair of tokens is."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], list[int]] = {}  # of a pair's second token
        self._known = 1  # tokens, the last of which ends no pair that is noted

    def guess(self, tokens: Sequence[int], count: int) -> tuple[list[int], int]:
        """Up to `count` tokens that may come next, none where nothing is known; how many tokens before them are as they
        were then, LONGEST at most."""
        for place in range(self._known, len(tokens) - 1):
            self._places.setdefault((tokens[place - 1], tokens[place]), []).append(place)
        self._known = max(self._known, len(tokens) - 1)
        places = self._places.get((tokens[-2], tokens[-1]), []) if len(tokens) >= PAIR else []
        best, same = 0, 0
        for place in reversed(places[-LATEST:]):
            length = self._same(tokens, place)
            if length > same:
                best, same = place, length
            if same == LONGEST:
                break
        if same == 0:
            return [], 0
        period = len(tokens) - 1 - best  # where the text that is known ends, what was guessed goes on
        found: list[int] = []
        for number in range(count):
            found.append(tokens[best + 1 + number] if number < period else found[number - period])
        return found, same

    @staticmethod
    def _same(tokens: Sequence[int], place: int) -> int:
        """How many tokens up to an earlier place are those of the end."""
        length, last = PAIR, len(tokens) - 1
        while length < LONGEST and length <= place and tokens[place - length] == tokens[last - length]:
            length += 1
        return length
