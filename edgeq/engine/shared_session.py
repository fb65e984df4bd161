"""One session for many callers: each sees the model as if it had it alone, and none changes another's result."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from edgeq.engine.answer import Answer, Generation, TokenLogprob
from edgeq.engine.drafting import Draft, Drafting
from edgeq.engine.prompt_cache import PromptCache
from edgeq.engine.speculation import Costs, Speculation
from edgeq.errors import EdgeqError
from edgeq.runtime.request import Request
from edgeq.runtime.scheduler import Scheduler

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.decode.sampler import Sampler
    from edgeq.runtime.session import Session

Result = TypeVar("Result")

SCORED = 64  # tokens of a pass that wants a row of logits, as long as the vocabulary, of each


class SharedSession:
    """Evaluates for several generations, in any threads, together: see `Scheduler`.

    Other work has the session to itself meanwhile, and its keys and values, which give way where memory is short. A
    `draft` guesses tokens of what is generated alone.
    """

    def __init__(self, session: "Session", draft: Draft | None = None) -> None:
        self.cache = PromptCache(session)
        self.costs = Costs()
        self._session, self.draft = session, draft
        self.scheduler = Scheduler(session.program, self._spill)
        self._requests = WeakSet[Request]()  # those that somebody holds

    def prepare(
        self, generation: Generation, ends: Collection[int], group: object = None, speculate: bool = True
    ) -> None:
        """Give a generation its request; all of a `group` are computed where one is waited for (see `Request`)."""
        choose, guesser = Choice(generation.sampler, generation.logprobs), None
        if speculate:
            sampler, costs = generation.sampler, self.costs
            guesser = Drafting(self.draft, sampler, costs) if self.draft else Speculation(costs)
        generation.request = Request(
            generation.sequence, generation.max_tokens, choose, ends, group, guesser, generation.mixed
        )
        self._requests.add(generation.request)
        generation.cancel = partial(self.scheduler.cancel, generation.request)

    def add(self, answers: Iterable[Answer]) -> None:
        """Queue answers that were prepared as a group."""
        for answer in answers:
            if answer.request is not None:
                self.scheduler.add(answer.request)

    def draw(self, generation: Generation, check: Callable[[], None]) -> Iterator[int]:
        """The tokens of a generation, each computed only when it is asked for; `check` raises where none can be."""
        timings, request = generation.timings, generation.request
        assert request is not None
        try:
            check()
            self.scheduler.add(request)
            while True:
                try:
                    drawn = self.scheduler.next(request)
                except EdgeqError:
                    check()
                    raise
                finally:
                    if not timings.generated_tokens:
                        timings.cached_tokens, timings.computed_tokens = request.cached, request.computed
                        timings.prompt_s = request.prompt_s
                timings.drafted_tokens, timings.accepted_tokens = request.drafted, request.accepted
                if drawn is None:
                    return
                if drawn.note is not None:
                    generation.scores.append(drawn.note)
                if timings.generated_tokens == 0:
                    timings.first_token_s = generation.prepared_s + drawn.seconds
                else:
                    timings.generation_s += drawn.seconds
                timings.generated_tokens += 1
                generation.sequence.append(drawn.token)
                yield drawn.token
                check()
        finally:
            self.scheduler.leave(request)

    def alone(self, work: Callable[[PromptCache], Result]) -> Result:
        """The result of `work`, during which nobody else uses the session. It may be begun twice."""
        return self.scheduler.alone(lambda: work(self.cache))

    @property
    def busy(self) -> bool:
        """Whether somebody holds an answer that may go on."""
        return any(request.open for request in [*self._requests])

    def close(self) -> None:
        """Nothing can be computed afterwards."""
        self.scheduler.close()
        self._session.close()

    def _spill(self) -> bool:
        if self._session.position == 0:
            return False
        self.cache.clear()
        return True


class Choice:
    """How a generation's tokens are chosen, and what is noted of each."""

    def __init__(self, sampler: "Sampler", logprobs: int | None) -> None:
        self._sampler, self._logprobs = sampler, logprobs

    def __call__(self, logits: "npt.NDArray[np.float32]", before: list[int]) -> tuple[int, TokenLogprob | None]:
        """The next token after these."""
        token = self._sampler.sample(logits, before)
        return token, None if self._logprobs is None else logprob(logits, token, self._logprobs)


def logprob(logits: "npt.NDArray[np.float32]", token: int, top: int) -> TokenLogprob:
    """What logits f32 [vocab] say of a token, and of the `top` likeliest ones: the model's own distribution, whatever
    the sampler makes of it. The same bits on every CPU."""
    import numpy as np

    from edgeq.decode.candidates import top_ids
    from edgeq.decode.log_total import log_total

    total = log_total(logits)
    ids = top_ids(logits, top) if 0 < top < len(logits) else np.arange(min(top, len(logits)))
    best = ids[np.argsort(-logits[ids], kind="stable")]
    return TokenLogprob(token, float(logits[token]) - total, tuple((int(i), float(logits[i]) - total) for i in best))


def log_softmax(logits: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float64]":
    """Natural logarithms of the probabilities, f64 [rows, vocab]."""
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
