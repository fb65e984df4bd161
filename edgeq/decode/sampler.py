"""Chooses the next token from logits, by the steps of the table."""

import copy
import math
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import numpy.typing as npt

from edgeq.decode import sampler_steps
from edgeq.decode.candidates import Candidates
from edgeq.decode.penalties import AllowedTokens
from edgeq.decode.sampler_steps import Draw, Filter, Processor, Sampling
from edgeq.decode.step import Text
from edgeq.errors import EdgeqError


class Sampler:
    """Chooses tokens one after another."""

    def __init__(self, text: Text | None = None, **sampling: Unpack[Sampling]) -> None:
        """`text` is what is known of the one to be written. Options that are not given have their defaults. Raises
        UsageError for a value that cannot work, or an option that there is none of."""
        values = sampler_steps.checked(sampling)
        steps = [step(values, text or Text()) for step in sampler_steps.STEPS]
        self._processors = [step for step in steps if isinstance(step, Processor)]
        (self._draw,) = (step for step in steps if isinstance(step, Draw))
        self._filters = [] if self._draw.mirostat else [step for step in steps if isinstance(step, Filter)]

    def sample(self, logits: npt.NDArray[np.float32], recent: Sequence[int] = ()) -> int:
        """The next token's id from its logits, f32[vocab]; `recent` are the ids before it, the latest last.

        With temperature 0 it is the largest logit, at a tie the one with the lowest id. Raises EdgeqError where the
        largest logit is not finite.
        """
        for processor in self._processors:
            logits = processor.process(logits, recent)
        best = int(np.argmax(logits))  # a NaN wins
        if not math.isfinite(logits[best]):
            raise EdgeqError(f"the model computed {logits[best]} for token {best}: nothing can be drawn from that")
        if self._draw.temperature == 0:
            return best
        candidates = Candidates(logits, float(logits[best]))
        for filter in self._filters:
            candidates = filter.filter(candidates)
        return self._draw.draw(candidates)

    def ahead(self) -> "Sampler":
        """One that draws as this one is about to, and leaves it as it is; what `allowed` allows it does not ask."""
        other = copy.copy(self)
        other._processors = [step for step in self._processors if not isinstance(step, AllowedTokens)]
        if self._draw.temperature != 0:
            kept = {id(self._draw.text): self._draw.text}
            other._draw, other._filters = copy.deepcopy((self._draw, self._filters), kept)
        return other
