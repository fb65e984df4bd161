"""The answer in a chat: its text, what was thought before it, and the tools that are called, told apart."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from secrets import choice as drawn
from string import ascii_letters, digits
from typing import Any

from edgeq.engine.answer import Answer, Generation
from edgeq.talk.parser import Parser, joined
from edgeq.talk.said import CallArguments, CallBegun, Said, Text, Thought


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool. `id` is what the message with its result is to name as `tool_call_id`."""

    name: str
    arguments: Mapping[str, Any]
    id: str


class ChatAnswer(Answer):
    """An answer in a chat: iterate over the pieces of its text, or over all `parts`, or take it as a whole.

    Thoughts and calls of tools are no part of its text.
    """

    def __init__(self, generation: Generation, pieces: Iterator[str], parser: Parser | None) -> None:
        """`pieces` are those of all that the model writes; without a `parser` they are the answer."""
        self._said: list[Said] = []
        # not a method: an answer that nobody holds any more must end at once, which a circle would put off
        super().__init__(generation, _told_apart(pieces, parser, self._said))

    @property
    def text(self) -> str:
        """The whole answer; what is still to come is generated first. After an error or Ctrl-C it is what came before.
        Empty where nothing but tools is called."""
        self._to_the_end()
        return "".join(one.text for one in self._said if isinstance(one, Text))

    @property
    def thinking(self) -> str:
        """What the model thought before it answered; empty where it did not, or has no way to tell. Generated first, as
        `text` is."""
        self._to_the_end()
        return "".join(one.text for one in self._said if isinstance(one, Thought))

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tools that the model calls, generated first, as `text` is. A call that is cut off (`finish_reason` is
        "max_tokens", "context" or "stop") is none."""
        self._to_the_end()
        calls = []
        for call in self._said:
            if isinstance(call, CallBegun):
                parts = (o.text for o in self._said if isinstance(o, CallArguments) and o.index == call.index)
                try:
                    arguments = json.loads("".join(parts))
                except ValueError:
                    continue
                if isinstance(arguments, dict):
                    calls.append(ToolCall(call.name, arguments, call.id))
        return calls

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, with which a conversation goes on: calls in OpenAI's form, what was thought as
        `reasoning_content`."""
        said: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.thinking:
            said["reasoning_content"] = self.thinking
        if calls := self.tool_calls:
            said["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
                }
                for call in calls
            ]
        return said

    def parts(self) -> Iterator[Said]:
        """All that becomes known, in its order: `Text` and `Thought` (`.text`), `CallBegun` (`.name`, `.id`) and
        `CallArguments` (`.text`, JSON), calls numbered by `.index`. What was iterated over before comes first."""
        shown, ended = 0, False
        while not ended:
            try:
                super().__next__()
            except StopIteration:
                ended = True
            yield from self._said[shown:]
            shown = len(self._said)

    def __next__(self) -> str:
        while True:
            if piece := super().__next__():
                return piece

    async def __anext__(self) -> str:
        while True:
            if piece := await super().__anext__():
                return piece

    def __repr__(self) -> str:
        begun = "".join(one.text for one in self._said if isinstance(one, Text))
        return f"<edgeq.ChatAnswer {begun!r:.60}: {self.finish_reason or 'not ended'}>"

    def _to_the_end(self) -> None:
        for _ in self:
            pass


def _told_apart(pieces: Iterator[str], parser: Parser | None, said: list[Said]) -> Iterator[str]:
    """The pieces of the answer: empty ones where something else became known. All of it is added to what was `said`."""
    for piece in pieces:
        yield _keep(said, [Text(piece)] if parser is None else parser.push(piece))
    if parser is not None:
        yield _keep(said, parser.end())


def _keep(said: list[Said], told: Iterable[Said]) -> str:
    named = [CallBegun(one.index, one.name, one.id or _id()) if isinstance(one, CallBegun) else one for one in told]
    said += named
    return "".join(one.text for one in joined(named) if isinstance(one, Text))


def _id() -> str:
    """An id for a call: nine letters and digits, as some chat templates want it."""
    return "".join(drawn(ascii_letters + digits) for _ in range(9))
