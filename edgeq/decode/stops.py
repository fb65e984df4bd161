"""Ends a streamed text at stop strings, without ever letting out a part of one."""

from collections.abc import Sequence

from edgeq.errors import UsageError


class StopStrings:
    """Holds back the end of a text for as long as it may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]):
        """Raises UsageError for an empty stop string, which would end every text before it begins."""
        if not all(stops):
            raise UsageError("a stop string is empty: leave it out, or give at least one character")
        self._stops = tuple(stops)
        self._held = ""
        self.reached = False

    def push(self, text: str) -> str:
        """The text that can be shown now. Once a stop string is complete, `reached` is set and no more comes."""
        if self.reached:
            return ""
        self._held += text
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:  # the one that is complete first ends the text, as if it came letter by letter
            self.reached = True
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        cut = len(self._held) - self._beginning()
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """What was held back, when the text ends for another reason."""
        shown, self._held = self._held, ""
        return shown

    def _beginning(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
