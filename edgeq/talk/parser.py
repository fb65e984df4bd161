"""What a model writes, told apart as it comes: thoughts, the answer, calls of tools."""

from collections.abc import Generator

from edgeq.talk.call_formats import CallFormat
from edgeq.talk.calls import Reader, Schemas
from edgeq.talk.incoming import SPACE, Incoming, Steps, Unreadable
from edgeq.talk.said import CallArguments, Said, Text, Thought
from edgeq.talk.thinking import NONE, Thinking


class Parser:
    """Reads one answer. However it is cut, the same is said of it."""

    def __init__(
        self,
        thinking: Thinking = NONE,
        calls: CallFormat | None = None,
        *,
        thoughts_first: bool = False,
        schemas: Schemas | None = None,
        begun: str = "",
    ) -> None:
        """`calls` is None where no tool may be called. `thoughts_first`: the prompt ends with the mark that opens
        thoughts. `schemas` are those of the tools' arguments, by name. `begun` is what of the answer the prompt holds.
        """
        self._source = Incoming()
        self._thinking, self._calls = thinking, calls
        self._told: list[Said] = []
        self._reader = None if calls is None else Reader(calls, self._source, self._told.append, schemas or {})
        self._held = ""  # white space that may turn out to lie before a mark
        self._fresh = False  # white space that comes now belongs to the mark before it
        self._steps: Generator[None, None, None] | None = self._answer(thoughts_first)
        self._source.push(begun)

    def push(self, text: str) -> list[Said]:
        """What became known with a further part of the text."""
        self._source.push(text)
        return self._go()

    def end(self) -> list[Said]:
        """What is known at the end of the text."""
        self._source.end()
        return self._go()

    @property
    def calls(self) -> int:
        """Calls that have begun."""
        return self._reader.count if self._reader is not None else 0

    def _go(self) -> list[Said]:
        if self._steps is not None:
            try:
                next(self._steps)
            except StopIteration:
                self._steps = None
        told = joined(self._told)
        self._told.clear()
        return told

    def _answer(self, thoughts_first: bool) -> Steps[None]:
        thinking, form, source = self._thinking, self._calls, self._source
        if thoughts_first:
            yield from self._thoughts()
        triggers = {mark.strip(SPACE) for mark in form.triggers} if form is not None else set()
        marks = [*{mark for mark in (thinking.opened, *thinking.dropped, *triggers) if mark}]
        if form is not None and form.bare:
            yield from self._bare()
        while (mark := (yield from source.until(marks, self._say))) is not None:
            before, self._held = self._held, ""
            if mark in triggers:
                source.note()
                yield from self._read(before + mark)
            elif mark == thinking.opened:
                yield from self._thoughts()
            else:
                self._fresh = True
        if self._held and not self._fresh:
            self._told.append(Text(self._held))

    def _say(self, text: str) -> None:
        """Say a part of the answer, but for white space at its end."""
        text = self._held + text
        if self._fresh:
            text = text.lstrip(SPACE)
        kept = text.rstrip(SPACE)
        self._held = text[len(kept) :]
        if kept:
            self._fresh = False
            self._told.append(Text(kept))

    def _thoughts(self) -> Steps[None]:
        held, fresh = "", True

        def say(text: str) -> None:
            nonlocal held, fresh
            text = held + text
            if fresh:
                text = text.lstrip(SPACE)
            kept = text.rstrip(SPACE)
            held = text[len(kept) :]
            if kept:
                fresh = False
                self._told.append(Thought(kept))

        yield from self._source.until([self._thinking.closed], say)
        self._fresh = True

    def _bare(self) -> Steps[None]:
        """Calls that nothing comes before: what an answer that begins with an object is, where it can be read so."""
        while True:
            self._source.note()
            yield from self._source.space()
            if (yield from self._source.peek()) != "{":
                self._say(self._source.noted())
                return
            if not (yield from self._read()):
                return
            yield from self._source.space()
            yield from self._source.accept(";")

    def _read(self, lead: str = "") -> Steps[bool]:
        """Read a section behind `lead`: whether it is one. What cannot be read is a part of the answer."""
        assert self._reader is not None
        count = self._reader.count
        try:
            yield from self._reader.section()
        except Unreadable:
            raw = self._source.noted()
            if self._reader.count == count:
                self._say(lead + raw)
                return False
        self._fresh = True
        return True


def joined(told: list[Said]) -> list[Said]:
    """The same in as few parts as possible."""
    found: list[Said] = []
    for one in told:
        last = found[-1] if found else None
        if isinstance(one, Text) and isinstance(last, Text):
            found[-1] = Text(last.text + one.text)
        elif isinstance(one, Thought) and isinstance(last, Thought):
            found[-1] = Thought(last.text + one.text)
        elif isinstance(one, CallArguments) and isinstance(last, CallArguments) and one.index == last.index:
            found[-1] = CallArguments(one.index, last.text + one.text)
        else:
            found.append(one)
    return found
