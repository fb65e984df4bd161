"""Guesses of a small model, for a large one of the same vocabulary to read along.

The small one draws as the request's own sampler would, with a copy of its generator: the nearer the two models are, the
more often it draws the same, also at a temperature. What it draws is a guess like any other (see speculation.py).
"""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeq.engine.prompt_cache import PromptCache
from edgeq.engine.speculation import ADAPT, WIDTHS, Costs, Speculation
from edgeq.engine.timings import Timings
from edgeq.errors import EdgeqError, UsageError
from edgeq.runtime.prefixes import common
from edgeq.text.tokenizer import FILES, Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from edgeq.container.reader import File
    from edgeq.decode.sampler import Sampler
    from edgeq.runtime.session import Session

Announce = Callable[[str], None] | None

HOPED = 0.7  # how often its next token is right, until the text itself has told
RECOVER = 0.005  # how fast that is hoped for again after each token that it was not asked for
BEHIND = 16  # tokens that it reads before it guesses, at most, for its time to tell what a guess takes
READING = 0.2  # of what a guess takes, what a token takes that is only read, many at a time
PAID_BACK = 4  # tokens that must be left for each pass that reading takes as long as
TRIED = 4  # tokens by which its time is measured when it is loaded


class Draft:
    """A small model in a session of its own, for the texts of a large one of `vocab` tokens. Threads take turns.

    share: what a token takes, in passes of one of the large model, before it was measured
    """

    def __init__(self, session: "Session", vocab: int, share: float) -> None:
        self._session, self._vocab, self._share = session, vocab, share
        self._cache = PromptCache(session)
        self._turns = threading.Lock()
        self._costs = Costs()

    def cost(self, costs: Costs) -> float:
        """The time of one guess, in passes of one row of the large model."""
        own, other = self._costs.seconds(1), costs.seconds(1)
        return self._share if own is None or not other else own / other

    def measure(self) -> None:
        """Find out what a guess takes, before any text is read in vain. It forgets what it knew."""
        with self._turns:
            for number in range(TRIED):
                clock = time.perf_counter()
                self._cache.append([0])
                if number:
                    self._costs.note(1, time.perf_counter() - clock)
            self._cache.clear()

    def reading(self, tokens: list[int], costs: Costs) -> float:
        """The time that it takes to read what it has not of a text, in passes of one row of the large model."""
        return READING * self.cost(costs) * (len(tokens) - common(self._cache.tokens, tokens, len(tokens)))

    def guess(self, tokens: list[int], count: int, sampler: "Sampler") -> list[int]:
        """Up to `count` tokens that `sampler` would draw from this model's logits after `tokens`; none where it cannot
        read these."""
        count = min(count, self._session.context - len(tokens))
        guesses: list[int] = []
        with self._turns:
            if count < 1:
                return guesses
            clock, timings, ahead = time.perf_counter(), Timings(), sampler.ahead()
            try:
                logits = self._cache.prompt(tokens, timings)
                while True:
                    guesses.append(ahead.sample(logits[: self._vocab], [*tokens, *guesses]))
                    if len(guesses) == count:
                        break
                    logits = self._cache.append(guesses[-1:])[-1]
            except EdgeqError:
                return guesses
            if timings.computed_tokens <= BEHIND:
                self._costs.note(1, (time.perf_counter() - clock) / count)
        return guesses

    def close(self) -> None:
        """Nothing is guessed afterwards."""
        self._session.close()
        self._session.file.close()


class Drafting:
    """The guesses of one generation: what the text itself tells, and a draft's where that is not enough. A `Guesser` of
    a request."""

    def __init__(self, draft: Draft, sampler: "Sampler", costs: Costs) -> None:
        self._draft, self._sampler, self._costs = draft, sampler, costs
        self._lookup = Speculation(costs)
        self._right = HOPED
        self._guesses: list[int] = []  # of the draft, what may come after the latest token
        self._works = True

    def draft(self, tokens: list[int], room: int) -> list[int]:
        """Guesses that are worth computing along."""
        self._guesses = []
        if found := self._lookup.draft(tokens, room):
            return found
        most = max(0, min(WIDTHS[-1] - 1, room)) if self._works else 0
        if PAID_BACK * self._draft.reading(tokens, self._costs) > room:
            most = 0
        chances = [self._right**number for number in range(1, most + 1)]
        count = self._costs.worth(chances, self._draft.cost(self._costs))
        if count:
            self._guesses = self._draft.guess(tokens, count, self._sampler)
        else:
            self._right += RECOVER * max(0.0, HOPED - self._right)
        return [*self._guesses]

    def drawn(self, token: int) -> None:
        """What came instead of the first guess, or as it."""
        self._lookup.drawn(token)
        if self._guesses:
            right = self._guesses[0] == token
            self._right += ADAPT * (right - self._right)
            self._guesses = self._guesses[1:] if right else []

    def took(self, rows: int, seconds: float) -> None:
        """A pass of so many rows."""
        self._lookup.took(rows, seconds)

    def stop(self) -> None:
        """Draft no more."""
        self._lookup.stop()
        self._works = False


def open_draft(
    path: str, model: "File", session: "Session", tokenizer: Tokenizer | None, force: bool, announce: Announce
) -> Draft:
    """The draft in the file `path` for a model and its session. Raises UsageError where its tokens are others, or it
    writes no text, MemoryLimitError where it does not fit beside the model; what it cannot run as any model does."""
    from edgeq.container.reader import open_file
    from edgeq.models import architecture
    from edgeq.runtime.fit import available_memory
    from edgeq.runtime.program import fit_of
    from edgeq.runtime.session import Session

    file = open_file(path)
    try:
        own = architecture(file.metadata["config"], file.path)
        if not own.writes_text:
            raise UsageError(f"{file.path}: embeds texts, and writes none: it cannot be a draft")
        check_vocabulary(file, model, tokenizer)
        context = min(session.context, own.max_position_embeddings)
        if not force:
            beside = sum(session.memory().values())
            fit_of(file, session.threads).check(context, available_memory() - beside)
        small = Session(file, context=context, threads=session.threads, force=True, announce=announce)
    except BaseException:
        file.close()
        raise
    draft = Draft(small, session.model.vocab_size, file.nbytes / model.nbytes)
    draft.measure()
    return draft


def check_vocabulary(draft: "File", model: "File", tokenizer: Tokenizer | None) -> None:
    """UsageError if the tokens of a draft's file are others than those of the model's, which has this tokenizer."""
    sizes = [file.tensors["token_embd.weight"].shape[0] for file in (draft, model)]
    other = f"it has another vocabulary than {model.path}: give a draft of that model's family"
    assets = {name: draft.asset(name) for name in draft.assets}
    if tokenizer is None or not assets.keys() & {*FILES}:
        if sizes[0] != sizes[1] or tokenizer is not None or assets.keys() & {*FILES}:
            raise UsageError(f"{draft.path}: has {sizes[0]} tokens, not {sizes[1]}, or no tokenizer: {other}")
        return
    own = load_tokenizer(assets, draft.path, sizes[0])
    for token in range(max(own.vocab_size, tokenizer.vocab_size)):
        if own.piece_bytes(token) != tokenizer.piece_bytes(token):
            pieces = f"{own.piece_bytes(token)!r:.60}, not {tokenizer.piece_bytes(token)!r:.60}"
            raise UsageError(f"{draft.path}: token {token} is {pieces}: {other}")
