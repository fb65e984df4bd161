"""The tokens whose keys and values a session holds: what a prompt has in common with them is not computed again."""

import time
from typing import TYPE_CHECKING

from edgeq.engine.timings import Timings
from edgeq.runtime.pace import Pace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.runtime.session import Session


class PromptCache:
    """One session, which nobody else uses, and the `tokens` that it has evaluated."""

    def __init__(self, session: "Session") -> None:
        self.tokens: list[int] = []
        self._session = session
        self._pace = Pace()

    def clear(self) -> None:
        """Forget everything."""
        self.tokens.clear()
        self._session.rewind(0)

    def append(self, tokens: list[int], all_logits: bool = False) -> "npt.NDArray[np.float32]":
        """Evaluate these further tokens; logits f32 [1, vocab] of the last one, or [tokens, vocab] of each."""
        logits = self._session.eval(tokens, all_logits=all_logits)
        self.tokens += tokens
        return logits

    def prompt(self, tokens: list[int], timings: Timings) -> "npt.NDArray[np.float32]":
        """Logits f32 [vocab] after `tokens`, of which the session computes only what it does not hold yet.

        An interrupt loses one piece at most: what was computed before it stays, and is all that the timings count.
        """
        start = self._keep(tokens, len(tokens) - 1)
        timings.cached_tokens = start
        return self._compute(tokens, start, timings)

    def hold(self, tokens: list[int]) -> None:
        """Have the session hold these tokens and no others; what it holds of them stays."""
        if self.tokens == tokens and self._session.position == len(tokens):
            return
        start = self._keep(tokens, len(tokens))
        if start < len(tokens):
            self._compute(tokens, start, Timings())

    def _compute(self, tokens: list[int], start: int, timings: Timings) -> "npt.NDArray[np.float32]":
        """Append what is behind `start`, piece by piece; logits f32 [vocab] after the last."""
        while start < len(tokens):
            piece = tokens[start : start + self._pace.alone]
            clock = time.perf_counter()
            logits: npt.NDArray[np.float32] = self.append(piece)[-1]
            seconds = time.perf_counter() - clock
            timings.computed_tokens += len(piece)
            timings.prompt_s += seconds
            start += len(piece)
            if len(piece) == self._pace.alone:
                self._pace.note(len(piece), seconds)
        return logits

    def _keep(self, tokens: list[int], most: int) -> int:
        """Rewind to what the first `most` of `tokens` have in common with what the session holds; how many those are.

        A prompt's last token is computed again, for its logits. All are where layers with a window no longer hold what
        they saw there.
        """
        held = min(len(self.tokens), int(self._session.position))  # an interrupt may have come between the two
        most = min(held, most)
        if self.tokens[:most] != tokens[:most]:
            most = next(i for i in range(most) if self.tokens[i] != tokens[i])
        most = self._session.rewindable(most)
        if most != self._session.position:
            self._session.rewind(most)
        del self.tokens[most:]
        return most
