"""DRY ("don't repeat yourself", by p-e-w, text-generation-webui 5677; as llama.cpp computes it): against loops.

A token that would go on with what followed the same tokens earlier is made less likely, by an amount that grows as e to
the power of how many tokens are repeated already.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeq.decode.option import Option
from edgeq.decode.step import Processor, Text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_LARGEST = 88.0  # e to the power of this is within f32


class Dry(Processor):
    """A token after n repeated ones loses multiplier * base ^ (n - allowed length)."""

    dry_multiplier = Option(
        0.0,
        holds=lambda value: 0 <= value < math.inf,
        must="0 (off) or more",
        help="Above 0 avoids to go on with a repetition (DRY).",
    )
    dry_base = Option(
        1.75,
        holds=lambda value: 1 <= value < math.inf,
        must="1 or more",
        help="The factor by which DRY's penalty grows with each repeated token.",
    )
    dry_allowed_length = Option(
        2,
        holds=lambda value: value >= 1,
        must="1 or more",
        help="How many repeated tokens DRY begins at.",
    )
    dry_penalty_last_n = Option(
        64,
        holds=lambda value: value >= -1,
        must="0 or more, or -1 (all)",
        help="How many of the latest tokens DRY looks at; -1 is all.",
    )
    dry_sequence_breakers = Option[Sequence[str]](
        ("\n", ":", '"', "*"),
        holds=lambda value: (
            isinstance(value, Sequence)
            and not isinstance(value, str)
            and all(isinstance(text, str) and text for text in value)
        ),
        must="a list of texts, none of them empty",
        help="Texts that no repetition goes across.",
        flags=("--dry-sequence-breaker",),
        kind=Sequence[str],
        read=tuple,
    )

    def __init__(self, values: Mapping[str, Any], text: Text) -> None:
        super().__init__(values, text)
        self._breakers = [each.encode() for each in self.dry_sequence_breakers]
        steepness = math.log(self.dry_base)
        self._most = self.dry_allowed_length + (int(_LARGEST / steepness) if steepness > 1e-6 else 0)

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        if self.dry_multiplier == 0 or self.dry_penalty_last_n == 0:
            return logits
        window = recent if self.dry_penalty_last_n < 0 else recent[-self.dry_penalty_last_n :]
        found = self._repetitions(window)
        if not found:
            return logits
        import numpy as np

        logits = logits.copy()
        for token, length in found.items():
            logits[token] -= np.float32(self.dry_multiplier * self.dry_base ** (length - self.dry_allowed_length))
        return logits

    def _repetitions(self, window: Sequence[int]) -> dict[int, int]:
        """Tokens that would go on with a repetition -> how many tokens are repeated, `dry_allowed_length` at least."""
        import numpy as np

        least = self.dry_allowed_length
        most = min(self._most, self._since_breaker(window))
        if most < least or len(window) <= least:
            return {}
        ids = np.asarray(window, np.int64)
        ends = np.flatnonzero(ids[:-1] == ids[-1])  # of what is repeated, at its present length
        found: dict[int, int] = {}
        length = 1
        while len(ends):
            if length >= least:
                found |= dict.fromkeys(ids[ends + 1].tolist(), length)
            if length == most:
                break
            ends = ends[ends >= length]
            ends = ends[ids[ends - length] == ids[-1 - length]]
            length += 1
        return {token: length for token, length in found.items() if not self._breaks(token)}

    def _since_breaker(self, window: Sequence[int]) -> int:
        """How many tokens there are after the latest that completes a breaker."""
        if self.text.piece_bytes is None or not self._breakers:
            return len(window)
        tail = b""  # what follows the token that is looked at, as far as a breaker can reach into it
        longest = max(map(len, self._breakers))
        for count, token in enumerate(reversed(window)):
            piece = self.text.piece_bytes(token)
            joined = piece + tail
            found = [at + len(each) for each in self._breakers if (at := joined.rfind(each)) >= 0]
            if any(end <= len(piece) for end in found):
                return count
            if found:  # it ends in a later token
                return self._after(window[len(window) - count :], max(found) - len(piece))
            tail = joined[: longest - 1]
        return len(window)

    def _after(self, tokens: Sequence[int], size: int) -> int:
        """How many of these follow the one that holds the byte before `size`."""
        assert self.text.piece_bytes is not None
        for count, token in enumerate(tokens, 1):
            size -= len(self.text.piece_bytes(token))
            if size <= 0:
                return len(tokens) - count
        return 0

    def _breaks(self, token: int) -> bool:
        """Whether a token has a breaker in it."""
        if self.text.piece_bytes is None:
            return False
        piece = self.text.piece_bytes(token)
        return any(each in piece for each in self._breakers)
