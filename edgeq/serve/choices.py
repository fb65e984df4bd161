"""The texts that one request asks for, one after the other: the same events, whether a client reads them as they come
or as a whole."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from secrets import choice as drawn
from string import ascii_letters, digits

from edgeq.engine.answer import TokenLogprob
from edgeq.serve.engine import End, Engine, Job, Piece, Wanted
from edgeq.talk.parser import Parser, joined
from edgeq.talk.said import CallArguments, CallBegun, Said, Text, Thought

HEARTBEAT_S = 10.0


@dataclass
class Choice:
    """One text, as far as it is known."""

    index: int
    parts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenLogprob | None] = field(default_factory=list)
    end: End | None = None
    said: list[Said] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(self.parts)

    @property
    def thought(self) -> str:
        """What was thought before it."""
        return "".join(one.text for one in self.said if isinstance(one, Thought))

    @property
    def calls(self) -> list[tuple[CallBegun, str]]:
        """The tools that are called, each with its arguments as JSON."""
        return [
            (call, "".join(o.text for o in self.said if isinstance(o, CallArguments) and o.index == call.index))
            for call in self.said
            if isinstance(call, CallBegun)
        ]


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
            parser = None if (make := self._wanted[index].parser) is None else make()
            async for event in self.jobs[-1].events(heartbeat):
                for one in _told_apart(parser, event):
                    yield index, one
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
                choice.said = joined([*choice.said, *event.said])
            elif event is not None:
                choice.end = event
        return choices

    @property
    def headers(self) -> dict[str, str]:
        """What is said of the answer before it begins: keywords of the tools' schemas that it does not follow."""
        grammar = self._wanted[0].grammar
        told = "" if grammar is None else "; ".join(grammar.passed_over)
        return {"X-Passed-Over": ascii(told)[1:-1][:1000]} if told else {}

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


def _told_apart(parser: Parser | None, event: Piece | End | None) -> list[Piece | End | None]:
    """An event with the parts of its text told apart; what the parser held back comes before the end."""
    if parser is None:
        if isinstance(event, Piece) and event.text:
            event = replace(event, said=(Text(event.text),))
        return [event]
    if isinstance(event, Piece):
        return [_piece(event, parser.push(event.text))]
    if not isinstance(event, End) or event.reason == "cancelled":
        return [event]
    rest = parser.end()
    reason = "tool_calls" if parser.calls and event.reason == "stop" else event.reason
    return [*([_piece(Piece("", [], ()), rest)] if rest else []), replace(event, reason=reason)]


def _piece(piece: Piece, said: list[Said]) -> Piece:
    named = [replace(one, id=one.id or _id()) if isinstance(one, CallBegun) else one for one in said]
    return replace(piece, text="".join(one.text for one in named if isinstance(one, Text)), said=named)


def _id() -> str:
    """An id for a call: nine letters and digits, as some chat templates want it."""
    return "".join(drawn(ascii_letters + digits) for _ in range(9))
