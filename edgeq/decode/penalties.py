"""Steps that change logits: what is asked for of tokens, and penalties for those that were there before."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from edgeq.decode.option import Option, is_computable
from edgeq.decode.step import Processor, Text
from edgeq.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Which tokens may come after these, the prompt among them: bool [vocab], or its bits, u8 [vocab / 8, rounded up], the
# first token in the lowest bit of the first byte, as np.packbits(..., bitorder="little") has it; None are all.
Allowed = Callable[[Sequence[int]], Any]


def _is_bias(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(token, Integral)
        and not isinstance(token, bool)
        and int(token) >= 0
        and isinstance(bias, Real)
        and is_computable(bias)
        and bias < math.inf
        for token, bias in value.items()
    )


def _read_bias(texts: Sequence[str]) -> Mapping[int, float]:
    """Of "ID=BIAS" each, e.g. 5=+1.5."""
    pairs = [text.partition("=") for text in texts]
    return {int(token): float(bias) for token, _, bias in pairs}


class LogitBias(Processor):
    """What callers add to logits."""

    logit_bias = Option[Mapping[int, float]](
        {},
        holds=_is_bias,
        must="numbers, less than infinity, by token id",
        help="Add to the logits of tokens, by id: 5=+1.5; -inf forbids one.",
        kind=Mapping[int, float],
        read=_read_bias,
    )

    def __init__(self, values: Mapping[str, Any], text: Text) -> None:
        super().__init__(values, text)
        self._ids = [int(token) for token in self.logit_bias]
        if self._ids and text.vocab is not None and max(self._ids) >= text.vocab:
            raise UsageError(f"logit_bias names token {max(self._ids)}: the model's vocabulary has {text.vocab}")

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        if not self._ids:
            return logits
        import numpy as np

        logits = logits.copy()
        logits[self._ids] += np.array(list(self.logit_bias.values()), np.float32)
        return logits


class AllowedTokens(Processor):
    """Tokens that a grammar, say, lets come next."""

    allowed = Option[Allowed | None](
        None,
        holds=callable,
        must="a function of the token ids before, or None",
        help="Draw only tokens that a function of the ids before allows: its result is a bool for each, or these bits.",
        kind=Allowed | None,
    )

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        if self.allowed is None or (mask := self.allowed(recent)) is None:
            return logits
        import numpy as np

        if mask.dtype == np.uint8 and mask.shape == (-(-len(logits) // 8),):
            mask = np.unpackbits(mask, count=len(logits), bitorder="little").view(np.bool_)
        if mask.dtype != np.bool_ or mask.shape != logits.shape:
            raise UsageError(
                f"allowed gave {mask.dtype} {list(mask.shape)}: it must be bool [{len(logits)}], or its bits as u8"
            )
        if not mask.any():
            raise UsageError("allowed lets no token come next")
        return np.where(mask, logits, np.float32(-np.inf))


class RepetitionPenalty(Processor):
    """That of CTRL (Keskar et al., 2019): a recent token's logit is divided if positive, else multiplied."""

    repetition_penalty = Option(
        1.0,
        holds=lambda value: 1e-30 <= value < math.inf,
        must="more than 0, at least 1e-30",
        help="Above 1 avoids tokens used lately.",
        config="repetition_penalty",
        gguf="penalty_repeat",
        flags=("--repeat-penalty",),
    )
    repetition_window = Option(
        64,
        holds=lambda value: value >= -1,
        must="-1 (all), 0 (off) or more",
        help="How many of the latest tokens the repetition penalty looks at; -1 is all.",
        flags=("--repeat-last-n",),
    )

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        if self.repetition_penalty == 1.0 or self.repetition_window == 0 or not recent:
            return logits
        import numpy as np

        window = recent if self.repetition_window < 0 else recent[-self.repetition_window :]
        seen = np.unique(np.asarray(window, dtype=np.int64))
        logits = logits.copy()
        values = logits[seen]
        penalty = np.float32(self.repetition_penalty)
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        return logits


class FrequencyPenalties(Processor):
    """Those of OpenAI's API: what is subtracted from the logits of tokens that were generated; the prompt's are free.

    The frequency penalty counts how often, the presence penalty counts once.
    """

    presence_penalty = Option(
        0.0,
        holds=math.isfinite,
        must="a finite number",
        help="Above 0 avoids tokens that the answer has already.",
    )
    frequency_penalty = Option(
        0.0,
        holds=math.isfinite,
        must="a finite number",
        help="Above 0 avoids tokens the more, the more often the answer has them.",
    )

    def process(self, logits: "npt.NDArray[np.float32]", recent: Sequence[int]) -> "npt.NDArray[np.float32]":
        if self.presence_penalty == self.frequency_penalty == 0 or len(recent) <= self.text.prompt_tokens:
            return logits
        import numpy as np

        ids, counts = np.unique(np.asarray(recent[self.text.prompt_tokens :], np.int64), return_counts=True)
        logits = logits.copy()
        logits[ids] -= (counts * self.frequency_penalty + self.presence_penalty).astype(np.float32)
        return logits
