"""The last step: the draw."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeq.decode.option import Option
from edgeq.decode.step import Step, Text

if TYPE_CHECKING:
    from edgeq.decode.candidates import Candidates


class Draw(Step):
    """The draw itself, from a random generator of its own."""

    temperature = Option(
        0.8,
        holds=lambda value: 0 <= value < math.inf,
        must="0 or more",
        help="0 always takes the likeliest token.",
        flags=("--temp",),
        config="temperature",
        gguf="temp",
    )
    dynatemp_range = Option(
        0.0,
        holds=lambda value: 0 <= value < math.inf,
        must="0 (off) or more",
        help="The temperature is less or more by up to this, the surer the model is, the less.",
    )
    dynatemp_exponent = Option(
        1.0,
        holds=lambda value: 0 < value < math.inf,
        must="more than 0",
        help="How the dynamic temperature follows the model's doubt: above 1, only great doubt raises it.",
        flags=("--dynatemp-exp",),
    )
    mirostat = Option(
        0,
        holds=lambda value: value in (0, 2),
        must="0 (off) or 2",
        help="2 draws by Mirostat 2, which keeps surprise at a level, in place of what else drops tokens.",
    )
    mirostat_tau = Option(
        5.0,
        holds=lambda value: 0 < value < math.inf,
        must="more than 0",
        help="The surprise that Mirostat aims at, in bits.",
        flags=("--mirostat-ent",),
    )
    mirostat_eta = Option(
        0.1,
        holds=lambda value: 0 <= value < math.inf,
        must="0 or more",
        help="How fast Mirostat corrects itself.",
        flags=("--mirostat-lr",),
    )
    seed = Option[int | None](
        None,
        holds=lambda value: value >= 0,
        must="0 or more",
        help="Seed of the draws: the same one gives the same text.",
        flags=("-s",),
        means={-1: None},  # another one each time
    )

    def __init__(self, values: Mapping[str, Any], text: Text) -> None:
        import numpy as np

        super().__init__(values, text)
        self._random = np.random.Generator(np.random.PCG64(self.seed))
        self._most_surprise = 2 * self.mirostat_tau

    def draw(self, candidates: "Candidates") -> int:
        """The id of one."""
        temperature = self._temperature(candidates)
        if temperature == 0:
            return candidates.id(int(candidates.logits.argmax()))
        candidates = candidates.tempered(temperature)
        if self.mirostat:
            return self._mirostat(candidates)
        return candidates.id(candidates.drawn(self._random.random()))

    def _temperature(self, candidates: "Candidates") -> float:
        """That of these candidates (llama.cpp's form of Hoshi and kalomaze's): by their entropy, as a share of what it
        is at most."""
        if self.dynatemp_range == 0 or len(candidates) == 1:
            return self.temperature
        least, most = max(0.0, self.temperature - self.dynatemp_range), self.temperature + self.dynatemp_range
        doubt = candidates.mean_surprise / math.log(len(candidates))
        return float(least + (most - least) * max(0.0, doubt) ** self.dynatemp_exponent)

    def _mirostat(self, candidates: "Candidates") -> int:
        """Mirostat 2 (Basu et al., 2021), as llama.cpp has it: only tokens that surprise less than a bound, which
        follows from what was drawn before."""
        kept = candidates.surprising_less(self._most_surprise * math.log(2))
        place = kept.drawn(self._random.random())
        self._most_surprise -= self.mirostat_eta * (-math.log2(kept.shares[place]) - self.mirostat_tau)
        return kept.id(place)
