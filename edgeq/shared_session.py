"""One session for many callers: each sees the model as if it had it alone, and none changes another's result."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from edgeq.answer import Generation, TokenLogprob
from edgeq.floor import Floor
from edgeq.prompt_cache import PromptCache
from edgeq.speculation import Pace
from edgeq.timings import Timings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.runtime.session import Session

Result = TypeVar("Result")

SCORED = 64  # tokens of a pass that wants a row of logits, as long as the vocabulary, of each


class SharedSession:
    """Evaluates for several generations, in any threads: they queue, see `Floor`.

    The session holds the keys and values of one of them. Another one's are computed again where it had to give way, to
    the same bits, as these do not depend on how a text was split.
    """

    def __init__(self, session: "Session") -> None:
        self.cache = PromptCache(session)
        self.pace = Pace()
        self._floor = Floor()

    def draw(self, generation: Generation, check: Callable[[], None]) -> Iterator[int]:
        """Up to max_tokens tokens, each computed only when it is asked for; `check` raises where none can be."""

        def step() -> int:
            check()
            return self._next(generation)

        try:
            for _ in range(generation.max_tokens):
                yield self._floor.step(generation, generation.caller, step)
        finally:
            self._floor.leave(generation)

    def alone(self, work: Callable[[PromptCache], Result]) -> Result:
        """The result of `work`, during which nobody else uses the session."""
        speaker = object()
        try:
            return self._floor.step(speaker, threading.get_ident(), lambda: work(self.cache))
        finally:
            self._floor.leave(speaker)

    def _next(self, generation: Generation) -> int:
        """Evaluate what the generation has beyond the cache, and draw its next token."""
        timings, cache = generation.timings, self.cache
        clock = time.perf_counter()
        sequence = generation.sequence
        speculation = generation.speculation
        if generation.evaluated == cache.number and len(cache.tokens) >= len(sequence) - 1:
            if speculation is None:
                logits = cache.append(sequence[-1:])[-1]
            else:
                left = generation.max_tokens - timings.generated_tokens - 1  # the last one is not computed
                logits = speculation.logits(cache, sequence, left, timings)
                generation.evaluated = cache.number
        else:  # the prompt; or all of it once more, as another one came between, which is no part of the prompt's time
            logits = cache.prompt(sequence, timings if timings.generated_tokens == 0 else Timings())
            generation.evaluated = cache.number
            if speculation is not None:
                speculation.forget()
        token = generation.sampler.sample(logits, sequence)
        if generation.logprobs is not None:
            generation.scores.append(logprob(logits, token, generation.logprobs))
        if timings.generated_tokens == 0:
            timings.first_token_s = generation.prepared_s + time.perf_counter() - clock
        else:
            timings.generation_s += time.perf_counter() - clock
        timings.generated_tokens += 1
        sequence.append(token)
        return token


def logprob(logits: "npt.NDArray[np.float32]", token: int, top: int) -> TokenLogprob:
    """What logits f32 [vocab] say of a token, and of the `top` likeliest ones: the model's own distribution, whatever
    the sampler makes of it."""
    import numpy as np

    from edgeq.decode.candidates import top_ids

    largest = logits.max()
    total = float(largest) + math.log(np.exp(logits - largest).sum(dtype=np.float64))
    ids = top_ids(logits, top) if 0 < top < len(logits) else np.arange(min(top, len(logits)))
    best = ids[np.argsort(-logits[ids], kind="stable")]
    return TokenLogprob(token, float(logits[token]) - total, tuple((int(i), float(logits[i]) - total) for i in best))


def log_softmax(logits: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float64]":
    """Natural logarithms of the probabilities, f64 [rows, vocab]."""
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
