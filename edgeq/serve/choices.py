"""The texts that one request asks for, one after the other: the same events, whether a client reads them as they come
or as a whole."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from edgeq.answer import TokenLogprob
from edgeq.serve.engine import End, Engine, Job, Piece, Wanted

HEARTBEAT_S = 10.0


@dataclass
class Choice:
    """One text, as far as it is known."""

    index: int
    parts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenLogprob | None] = field(default_factory=list)
    end: End | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Run:
    """The work of one request. Made when it is sure that it can be done; `events` does it."""

    def __init__(self, engine: Engine, wanted: Sequence[Wanted]) -> None:
        """Raises as `Engine.submit` does, for any of the texts."""
        for one in wanted[1:]:
            engine.check(one)
        self._engine, self._wanted = engine, wanted
        self.jobs: list[Job] = [engine.submit(wanted[0])]
        self.cancelled = False

    def cancel(self) -> None:
        """Compute nothing further."""
        self.cancelled = True
        self.jobs[-1].cancel()

    async def events(self, heartbeat: float = HEARTBEAT_S) -> AsyncIterator[tuple[int, Piece | End | None]]:
        """(index of the text, what came of it); None where nothing came for `heartbeat` seconds."""
        for index in range(len(self._wanted)):
            if index:
                self.jobs.append(self._engine.submit(self._wanted[index], admitted=True))
            async for event in self.jobs[-1].events(heartbeat):
                yield index, event
            if self.cancelled:
                return

    async def whole(self) -> list[Choice]:
        """All texts, when they are there."""
        choices = [Choice(index) for index in range(len(self._wanted))]
        async for index, event in self.events():
            choice = choices[index]
            if isinstance(event, Piece):
                choice.parts.append(event.text)
                choice.tokens += event.tokens
                choice.scores += event.scores
            elif event is not None:
                choice.end = event
        return choices

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once."""
        return sum(len(tokens) for tokens in {tuple(wanted.tokens) for wanted in self._wanted})

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that had not to be computed when they were first asked for."""
        firsts = {tuple(job.wanted.tokens): job.timings.cached_tokens for job in reversed(self.jobs)}
        return sum(firsts.values())

    @property
    def generated_tokens(self) -> int:
        return sum(job.timings.generated_tokens for job in self.jobs)
