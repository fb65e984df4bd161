"""Calls of tools in the formats of the table: read as they come, and written."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeq.talk.call_formats import ID, NAME, NUMBER, CallFormat
from edgeq.talk.incoming import Incoming, Steps, Unreadable
from edgeq.talk.said import CallArguments, CallBegun, Said

_SLOT = re.compile(f"([{ID}{NAME}{NUMBER}])")
_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")
_LARGEST_NAME = 256  # characters

Tell = Callable[[Said], None]
Schemas = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Call:
    """A call as a whole."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


def write(form: CallFormat, calls: Sequence[Call]) -> str:
    """Calls as a model writes them."""

    def one(number: int, call: Call) -> str:
        slots = {ID: call.id, NUMBER: str(number), NAME: call.name}
        around = _SLOT.sub(lambda slot: slots[slot[0]], form.before + NAME + form.between)
        return around + form.arguments.write(call.arguments) + form.after

    written = [one(number, call) for number, call in enumerate(calls)]
    if form.several:
        return f"{form.trigger}{form.opened}{form.separator.join(written)}{form.closed}"
    return form.separator.join(f"{form.trigger}{form.opened}{call}{form.closed}" for call in written)


class Reader:
    """Reads the calls of one answer, and tells of them as they become known."""

    def __init__(self, form: CallFormat, source: Incoming, tell: Tell, schemas: Schemas) -> None:
        """`schemas` are those of the tools' arguments."""
        self._form, self._source, self._tell, self._schemas = form, source, tell, schemas
        self._count = 0
        self._open = False  # a call has begun, and its arguments are not whole

    @property
    def count(self) -> int:
        """Calls that have begun."""
        return self._count

    def section(self) -> Steps[None]:
        """A section, behind its trigger. Raises Unreadable where it holds no further call."""
        form, source = self._form, self._source
        closed = [mark for mark in form.closed.split() if mark]
        yield from self._skip(form.opened)
        while True:
            if form.objects:
                yield from self._object()
            else:
                yield from self._headed()
            yield from self._skip(form.separator if form.several else "")
            if not form.several or not (yield from self._goes_on(closed)):
                break
        for mark in closed:
            yield from source.space()
            yield from source.accept(mark)

    def _goes_on(self, closed: Sequence[str]) -> Steps[bool]:
        """Whether another call of the section follows."""
        yield from self._source.space()
        begin = "{" if self._form.objects else _pieces(self._form)[0].strip()
        if begin:
            return (yield from self._source.peek(len(begin))) == begin
        end = closed[0] if closed else ""
        rest = yield from self._source.peek(len(end) or 1)
        return bool(rest) and rest != end

    def _skip(self, literal: str) -> Steps[None]:
        """Pass over what may lie between calls, part by part."""
        for part in literal.split():
            yield from self._source.space()
            yield from self._source.accept(part)

    def _begin(self, name: str, id: str = "") -> None:
        name = name.strip()
        if not name or len(name) > _LARGEST_NAME or any(c.isspace() for c in name):
            raise Unreadable
        self._tell(CallBegun(self._count, name, id))
        self._count += 1

    def _say(self, text: str) -> None:
        if text:
            self._tell(CallArguments(self._count - 1, text))

    def _headed(self) -> Steps[None]:
        """A call that begins with its name."""
        form, source = self._form, self._source
        slots = {NAME: "", ID: "", NUMBER: ""}
        pieces = _pieces(form)
        yield from source.expect(pieces[0])
        for slot, literal in zip(pieces[1::2], pieces[2::2], strict=True):
            ends = [end for end in (form.until or literal.strip(),) if end] or [
                end for end in (form.arguments.opening, form.after.strip(), form.closed.strip(), "\n") if end
            ]
            value, mark = yield from source.collect(*ends, keep=not literal.strip())
            if mark is None and literal.strip():
                raise Unreadable
            slots[slot] = value.strip()
        name = slots[NAME].split("<|channel|>")[0].removeprefix("functions.").split(" ")[0]
        if form.answer and name == form.answer:
            return
        id = f"functions.{name}:{slots[NUMBER]}" if form.keeps_id else ""
        self._begin(name, id)
        yield from form.arguments.read(source, self._say, self._schemas.get(name, {}))
        yield from self._skip(form.after)

    def _object(self) -> Steps[None]:
        """A call that is a JSON object."""
        source, form = self._source, self._form
        yield from source.expect("{")
        name = held = None
        begun = False
        while True:
            yield from source.space()
            if (yield from source.accept("}")):
                break
            yield from source.accept(",")
            key = yield from self._text()
            yield from source.expect(":")
            if form.by_name and not begun:
                self._begin(key)
                begun = True
                yield from form.arguments.read(source, self._say, {})
            elif key in _NAMES:
                name = yield from self._text()
            elif key in _ARGUMENTS and name is not None:
                self._begin(name)
                begun = True
                yield from form.arguments.read(source, self._say, {})
            elif key in _ARGUMENTS:
                parts: list[str] = []
                yield from form.arguments.read(source, parts.append, {})
                held = "".join(parts)
            elif name is None and form.bare and key != "type":
                raise Unreadable  # another object, which is the answer
            else:
                yield from source.value(lambda text: None)
        if not begun:
            if name is None:
                raise Unreadable
            self._begin(name)
            self._say(held or "{}")

    def _text(self) -> Steps[str]:
        """A text in JSON."""
        yield from self._source.space()
        if (yield from self._source.peek()) != '"':
            raise Unreadable
        parts: list[str] = []
        yield from self._source.value(parts.append)
        try:
            return str(json.loads("".join(parts)))
        except ValueError:
            raise Unreadable from None


def _pieces(form: CallFormat) -> list[str]:
    """What comes before a call's arguments: texts, and between them the names of what is not fixed."""
    return _SLOT.split(form.before + NAME + form.between)


def calls_of(said: Sequence[Said]) -> Iterator[Call]:
    """The calls in what was said, whole. Raises ValueError where the arguments of one are no JSON."""
    begun = [one for one in said if isinstance(one, CallBegun)]
    for call in begun:
        parts = (one.text for one in said if isinstance(one, CallArguments) and one.index == call.index)
        yield Call(call.name, json.loads("".join(parts)), call.id)
